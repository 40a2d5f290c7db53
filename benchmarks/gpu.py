"""Latency at batch 1 and throughput at batch 256 on a CUDA device, against PyTorch; float32 is nowhere TF32."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.networks import (
    FUSABLE_FILE,
    IMAGES_FILE,
    INLINED_FILE,
    PLAIN_FILE,
    RESNET,
    WEIGHTS_FILE,
    pde_preset,
    write_networks,
)
from benchmarks.timing import time_in_turns
from pdeinfer import DeviceError, ParityError, PdeinferError
from pdeinfer.backend import require_tensorflow
from pdeinfer.export.precisions import to_half
from pdeinfer.export.variants import TOLERANCES
from pdeinfer.parity import TOLERANCE, Array, compare
from pdeinfer.presets import Preset

BATCH_SIZES = (1, 256)
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
HALF = "pdeinfer --half"

Run = Callable[[], Array]  # classifies one batch, whose images and size are fixed


def main() -> int:
    """Run the benchmark; return the exit code: 0, 1 where the routes differ, or 2 where CUDA cannot be used."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        print("benchmark: needs a CUDA device, onnxruntime-gpu and PyTorch with CUDA", file=sys.stderr)
        return 2
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # for every library of NVIDIA's
    import torch

    onnxruntime.preload_dlls()
    torch.backends.cudnn.allow_tf32 = False  # and for what PyTorch compiles itself
    print(machine("onnxruntime-gpu", "torch"))
    print(f"Device: {torch.cuda.get_device_name()}\n")
    require_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # it makes the networks, and would take the GPU's memory
    presets = [RESNET, *map(pde_preset, (1, 5, 10))]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for preset, path in write_networks(presets, Path(folder), BATCH_SIZES[-1]).items():
                for size in BATCH_SIZES:
                    timings = time_in_turns(measured_routes(preset, path, size, "cuda"), rounds=25)
                    print(f"### {preset.name}, batch {size}\n")
                    rows = [[name, milliseconds(time), f"{size / time.median:,.0f}"] for name, time in timings.items()]
                    print(table(["route", "milliseconds, median (quartiles)", "images a second"], rows), flush=True)
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    return 0


def measured_routes(preset: Preset, folder: Path, size: int, device: str) -> dict[str, Run]:
    """Return the routes for the network in a folder, once they give equal probabilities, in float16 close ones.

    Args:
        device: "cuda", or "cpu" to try this benchmark without a GPU.

    Raises:
        ParityError: they do not.
        DeviceError: the device cannot be used.
    """
    images = np.load(folder / IMAGES_FILE)[:size]
    routes = {**dict(_onnx_routes(folder, images, device)), **dict(_torch_routes(preset, folder, images, device))}
    (reference, expected), *candidates = routes.items()
    for name, run in candidates:
        is_half = name.startswith(HALF)
        report = compare(
            (reference, lambda _: expected()),
            (name, lambda _, run=run: run()),
            {"smooth noise": images},
            batch_sizes=(size,),
            tolerance=TOLERANCES["half"] if is_half else TOLERANCE,
        )
        # Of float16 it is not asked that every label is the same.
        if not (report.max_absolute <= report.tolerance if is_half else report.passed):
            raise ParityError(f"the routes differ:\n{report}")
    return routes


def _onnx_routes(folder: Path, images: Array, device: str) -> Iterator[tuple[str, Run]]:
    """Yield the runs of ONNX Runtime: from the CPU's memory, and with all buffers on the device, as a CUDA graph.

    Where pdeinfer's function has dilated convolutions, `--inline` slices and concatenates, as the plain file does.
    """
    import onnx
    import onnxruntime

    function = (folder / FUSABLE_FILE).read_bytes()
    models = {
        "pdeinfer's function": function,
        "pdeinfer --inline": (folder / INLINED_FILE).read_bytes(),
        HALF: to_half(onnx.load_model_from_string(function)).SerializeToString(),
        "tf2onnx": (folder / PLAIN_FILE).read_bytes(),
    }
    for name, model in models.items():
        plain, graph = _providers(device, graph=False), _providers(device, graph=True)
        yield f"{name}, ONNX Runtime", partial(_run, _session(model, plain), images)
        yield (
            f"{name}, ONNX Runtime, bound buffers and CUDA graph",
            _bound_run(_session(model, graph), images, device),
        )
        if device == "cuda" and TENSORRT in onnxruntime.get_available_providers():
            try:
                session = _session(model, [(TENSORRT, {}), *plain])
            except DeviceError as error:  # ONNX Runtime has it, and its libraries are not there
                print(f"without TensorRT: {error}", file=sys.stderr)
            else:
                yield f"{name}, TensorRT", _bound_run(session, images, device)


def _providers(device: str, *, graph: bool) -> list[Any]:
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    return [(CUDA, {"use_tf32": "0", "enable_cuda_graph": str(int(graph))})]


def _session(model: bytes, providers: list[Any]) -> Any:
    """Return a session on the first of the providers.

    Raises:
        DeviceError: it cannot be used; ONNX Runtime would go on with the next, or with the CPU's.
    """
    import onnxruntime

    wanted = providers[0][0]
    try:
        session = onnxruntime.InferenceSession(model, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise DeviceError(f"{wanted} cannot be used: {error}") from error
    if session.get_providers()[0] != wanted:
        raise DeviceError(f"{wanted} cannot be used: ONNX Runtime fell back to {session.get_providers()}")
    return session


def _run(session: Any, images: Array) -> Array:
    return np.asarray(session.run(None, {"image": images})[0])


def _bound_run(session: Any, images: Array, device: str) -> Run:
    import onnxruntime

    classes = session.get_outputs()[0].shape[-1]
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((len(images), classes), np.float32), device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(images, device, 0))
    binding.bind_ortvalue_output("probabilities", output)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return np.array(output.numpy())  # in the CPU's memory it is the buffer itself

    return run


def _torch_routes(preset: Preset, folder: Path, images: Array, device: str) -> Iterator[tuple[str, Run]]:
    """Yield the runs of PyTorch, with the images on the device."""
    import torch

    from benchmarks.torch_network import Network

    network = Network(preset, list(np.load(folder / WEIGHTS_FILE).values())).eval().to(device)
    batch = torch.from_numpy(images).to(device)
    compiled = torch.compile(network, dynamic=False, mode="max-autotune")  # CUDA graphs too

    def run(module: Any) -> Array:
        with torch.no_grad():
            return np.asarray(module(batch).cpu())

    yield "PyTorch", partial(run, network)
    yield "torch.compile", partial(run, compiled)


if __name__ == "__main__":
    sys.exit(main())
