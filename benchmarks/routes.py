"""The ways to run a network: each loads the files of `networks` as a function from images to probabilities."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.machine import cpu_flags
from benchmarks.networks import FUSABLE_FILE, INLINED_FILE, INT8_FILE, KERAS_FILE, PLAIN_FILE, WEIGHTS_FILE
from pdeinfer.arrays import Array
from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.parity import TOLERANCE, Classify
from pdeinfer.checks.report import Comparison
from pdeinfer.spec.presets import Preset

Open: TypeAlias = Callable[[Preset, Path, int], Classify]  # preset, folder, threads


@dataclass(frozen=True, slots=True)
class Precision:
    """What a route computes in, and how close it must come to tf2onnx's file in float32.

    Attributes:
        tolerance: the largest difference of a probability.
        agreement: the smallest share of images with the same label.
    """

    name: str
    tolerance: float
    agreement: float

    def explains(self, found: Comparison) -> bool:
        """Return whether the differences are within both limits; a NaN never is."""
        return found.max_absolute <= self.tolerance and (found.top1_equal or 0) >= self.agreement * found.count


FLOAT32 = Precision("float32", TOLERANCE, 1.0)
# Random weights tell classes apart by less than trained ones, so rounding changes more labels. Measured with ResNet32
# and cifar10-global: bf16 differs by up to 0.004 and keeps at least 95 % of the labels, int8 by 0.016 and 64 %. Chance
# keeps 10 %.
BF16 = Precision("bf16", 0.02, 0.85)
INT8 = Precision("int8", 0.05, 0.4)


@dataclass(frozen=True, slots=True)
class Route:
    """One way to run a network.

    Attributes:
        package: what must be installed.
        open: loads a network from its folder, for a number of threads.
        precision: of most of the computation; in int8, PDE layers stay in float32.
    """

    package: str
    open: Open
    precision: Precision = FLOAT32


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


def open_int8(preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's int8 file, with the fused operator."""
    return _open_onnx(preset, folder / INT8_FILE, threads, fused=True)


def open_openvino(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's file, with functions inlined, into OpenVINO."""
    return _open_openvino(folder / INLINED_FILE, threads, "f32")


def open_openvino_plain(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load tf2onnx's file into OpenVINO."""
    return _open_openvino(folder / PLAIN_FILE, threads, "f32")


def open_openvino_bf16(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load pdeinfer's file, with functions inlined, into OpenVINO that computes in bf16."""
    return _open_openvino(folder / INLINED_FILE, threads, "bf16")


def open_openvino_plain_bf16(_preset: Preset, folder: Path, threads: int) -> Classify:
    """Load tf2onnx's file into OpenVINO that computes in bf16."""
    return _open_openvino(folder / PLAIN_FILE, threads, "bf16")


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
INT8_FUSED = "pdeinfer, int8, fused operator"
OPENVINO_BF16 = "pdeinfer --inline, OpenVINO, bf16"
OPENVINO_PLAIN_BF16 = "tf2onnx, OpenVINO, bf16"

ROUTES = {
    FUSED: Route("onnxruntime", open_fused),
    FUNCTION: Route("onnxruntime", open_function),
    PLAIN: Route("onnxruntime", open_plain),
    OPENVINO: Route("openvino", open_openvino),
    OPENVINO_PLAIN: Route("openvino", open_openvino_plain),
    INT8_FUSED: Route("onnxruntime", open_int8, INT8),
    OPENVINO_BF16: Route("openvino", open_openvino_bf16, BF16),
    OPENVINO_PLAIN_BF16: Route("openvino", open_openvino_plain_bf16, BF16),
    "Keras predict": Route("tensorflow", open_keras),
    "tf.function": Route("tensorflow", open_tf_function),
    "PyTorch": Route("torch", open_torch),
    "torch.compile": Route("torch", open_torch_compiled),
}


def why_left_out(route: str) -> str | None:
    """Return why a route cannot run here, or None: a package is missing, or the CPU lacks the precision."""
    package, precision = ROUTES[route].package, ROUTES[route].precision
    if not importlib.util.find_spec(package):
        return f"{package} is not installed"
    # OpenVINO takes bf16 on any CPU with AVX-512, and emulates it without these.
    if precision is BF16 and not cpu_flags() & {"avx512_bf16", "amx_bf16"}:
        return "this CPU has no bf16 instructions"
    return None


def _open_onnx(preset: Preset, path: Path, threads: int, *, fused: bool) -> Classify:
    from pdeinfer.runtime.session import create_session

    session = create_session(path.read_bytes(), "cpu", threads, fused=fused)
    if fused and preset.network.pde is not None and session.pde_layers != "fused":
        raise RuntimeError(f"the PDE layers of {path} run as {session.pde_layers!r} instead of 'fused'")
    return lambda images: session.run("probabilities", {"image": images})


def _open_openvino(path: Path, threads: int, precision: str) -> Classify:
    import openvino

    core = openvino.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,  # the default is bf16 on a CPU that has it
    }
    requests = {}

    def classify(images: Array) -> Array:
        # Compiled for each batch size: faster than with a free one.
        if len(images) not in requests:
            model = core.read_model(path)
            model.reshape({"image": list(images.shape)})
            compiled = core.compile_model(model, "CPU", properties)
            if (found := compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()) != precision:
                raise RuntimeError(f"OpenVINO computes {path} in {found} instead of {precision}")
            requests[len(images)] = compiled.create_infer_request()
        return np.asarray(requests[len(images)].infer([images], share_inputs=True)[0])

    return classify


def _torch_network(preset: Preset, folder: Path, threads: int) -> object:
    import torch

    from benchmarks.torch_network import Network

    torch.set_num_threads(threads)
    return Network(preset, list(np.load(folder / WEIGHTS_FILE).values())).eval()
