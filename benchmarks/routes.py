"""The ways to run a network: each loads the files of `networks` as a function from images to probabilities."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.networks import FUSABLE_FILE, INLINED_FILE, KERAS_FILE, PLAIN_FILE, WEIGHTS_FILE
from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.parity import Array, Classify
from pdeinfer.spec.presets import Preset

Open: TypeAlias = Callable[[Preset, Path, int], Classify]  # preset, folder, threads


@dataclass(frozen=True, slots=True)
class Route:
    """One way to run a network.

    Attributes:
        package: what must be installed.
        open: loads a network from its folder, for a number of threads.
    """

    package: str
    open: Open


def open_fused(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's file as Predictor does, with the fused operator.

    Raises:
        RuntimeError: the operator is not used, though the network has PDE layers.
    """
    return _open_onnx(preset, folder / FUSABLE_FILE, threads, fused=True)


def open_function(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's file without its operator: ONNX Runtime inlines the function of the PDE layers."""
    return _open_onnx(preset, folder / FUSABLE_FILE, threads, fused=False)


def open_plain(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load tf2onnx's file."""
    return _open_onnx(preset, folder / PLAIN_FILE, threads, fused=False)


def open_openvino(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's file, with functions inlined, into OpenVINO."""
    return _open_openvino(folder / INLINED_FILE, threads)


def open_openvino_plain(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load tf2onnx's file into OpenVINO."""
    return _open_openvino(folder / PLAIN_FILE, threads)


def open_keras(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Return Keras's `predict`, with its defaults, as probabilities.

    Each call costs tens of milliseconds whatever the network: most of the time at batch 1.
    """
    model = load_keras(folder, threads)

    def classify(images: Array) -> Array:
        logits = model.predict(images, verbose=0)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    return classify


def open_tf_function(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Return the network traced by TensorFlow."""
    model = load_keras(folder, threads)
    from pdeinfer.export.rewrite.traced import trace

    function = trace(model)
    return lambda images: np.asarray(function(images)["probabilities"])


def open_torch(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load the equal network in PyTorch."""
    import torch

    network = _torch_network(preset, folder, threads)

    def classify(images: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(images)))

    return classify


def open_torch_compiled(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load the equal network in PyTorch, compiled for each batch size with constant weights."""
    import torch

    torch._dynamo.config.recompile_limit = 64  # the default is 8 per process, over all shapes and networks
    network = torch.compile(_torch_network(preset, folder, threads), dynamic=False, options={"freezing": True})

    def classify(images: Array) -> Array:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(images)))

    return classify


def load_keras(folder: Path, threads: int) -> object:
    """Return the Keras network of a folder. TensorFlow takes its number of threads once per process."""
    require_tensorflow()
    import keras
    import tensorflow as tf

    import pdeinfer.nn  # noqa: F401  # registers Classifier with Keras

    tf.get_logger().setLevel("ERROR")  # it warns of every function that is traced again
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return keras.saving.load_model(folder / KERAS_FILE, compile=False)


FUSED = "pdeinfer, fused operator"
FUNCTION = "pdeinfer, function inlined"
PLAIN = "tf2onnx, ONNX Runtime"
OPENVINO = "pdeinfer --inline, OpenVINO"
OPENVINO_PLAIN = "tf2onnx, OpenVINO"

ROUTES = {
    FUSED: Route("onnxruntime", open_fused),
    FUNCTION: Route("onnxruntime", open_function),
    PLAIN: Route("onnxruntime", open_plain),
    OPENVINO: Route("openvino", open_openvino),
    OPENVINO_PLAIN: Route("openvino", open_openvino_plain),
    "Keras predict": Route("tensorflow", open_keras),
    "tf.function": Route("tensorflow", open_tf_function),
    "PyTorch": Route("torch", open_torch),
    "torch.compile": Route("torch", open_torch_compiled),
}


def missing_package(route: str) -> str | None:
    """Return the package that a route needs, if it is not installed, else None."""
    package = ROUTES[route].package
    return None if importlib.util.find_spec(package) else package


def _open_onnx(preset: Preset, path: Path, threads: int, *, fused: bool) -> Classify:
    from pdeinfer.runtime.session import create_session

    session = create_session(path.read_bytes(), "cpu", threads, fused=fused)
    if fused and preset.network.pde is not None and session.pde_layers != "fused":
        raise RuntimeError(f"the PDE layers of {path} run as {session.pde_layers!r} instead of 'fused'")
    return lambda images: session.run("probabilities", {"image": images})


def _open_openvino(path: Path, threads: int) -> Classify:
    import openvino

    core = openvino.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = {}

    def classify(images: Array) -> Array:
        # Compiled for each batch size: faster than with a free one.
        if len(images) not in compiled:
            model = core.read_model(path)
            model.reshape({"image": list(images.shape)})
            compiled[len(images)] = core.compile_model(model, "CPU", properties).create_infer_request()
        return np.asarray(compiled[len(images)].infer([images], share_inputs=True)[0])

    return classify


def _torch_network(preset: Preset, folder: Path, threads: int) -> object:
    import torch

    from benchmarks.torch_network import Network

    torch.set_num_threads(threads)
    return Network(preset, list(np.load(folder / WEIGHTS_FILE).values())).eval()
