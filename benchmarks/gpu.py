"""Measures latency at batch 1 and throughput at batch 256 on a CUDA device, against PyTorch, without TF32.

The machine with the device needs no TensorFlow if `python -m benchmarks.gpu --write FOLDER` wrote the networks on
another one.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

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
from pdeinfer import DeviceError, PdeinferError
from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.parity import Array, compare
from pdeinfer.checks.report import Report
from pdeinfer.spec.presets import Preset

BATCH_SIZES = (1, 256)
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

PRESETS = [pde_preset(1), RESNET, pde_preset(5), pde_preset(10)]

Run: TypeAlias = Callable[[], Array]  # classifies one fixed batch


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code: 0, 1 if a route was left out, or 2 if nothing can be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", type=Path, metavar="FOLDER", help="write the networks into a new folder, and stop")
    group.add_argument("--networks", type=Path, metavar="FOLDER", help="measure networks that --write wrote")
    arguments = parser.parse_args(argv)
    try:
        if arguments.write is not None:
            _write(arguments.write)
            return 0
        return _measure(arguments.networks)
    except (PdeinferError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2


def _write(folder: Path) -> None:
    """Write the networks into a new folder, or nothing."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: --write FOLDER names a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        written = Path(scratch) / folder.name
        written.mkdir()
        write_networks(PRESETS, written, BATCH_SIZES[-1])
        written.rename(folder)


def _measure(networks: Path | None) -> int:
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError("needs a CUDA device, onnxruntime-gpu and PyTorch with CUDA")
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # for every library of NVIDIA's
    import torch

    onnxruntime.preload_dlls()
    torch.backends.cudnn.allow_tf32 = False  # and for what PyTorch compiles itself
    print(machine("onnxruntime-gpu", "torch"))
    print(f"Device: {torch.cuda.get_device_name()}\n")
    left_out = 0
    with tempfile.TemporaryDirectory() as scratch:
        if networks is None:
            require_tensorflow()
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")  # it would take all of the GPU's memory
            networks = Path(scratch)
            write_networks(PRESETS, networks, BATCH_SIZES[-1])
        for preset in PRESETS:
            for size in BATCH_SIZES:
                routes, failures = measured_routes(preset, networks / preset.name, size, "cuda")
                timings = time_in_turns(routes, rounds=25)
                print(f"### {preset.name}, batch {size}\n")
                rows = [[name, milliseconds(time), f"{size / time.median:,.0f}"] for name, time in timings.items()]
                print(table(["route", "milliseconds, median (quartiles)", "images a second"], rows))
                print("".join(f"Left out, {failure}\n\n" for failure in failures), end="", flush=True)
                left_out += len(failures)
    return 1 if left_out else 0


def measured_routes(preset: Preset, folder: Path, size: int, device: str) -> tuple[dict[str, Run], list[str]]:
    """Return the routes that can run the network in a folder, and a line per route that is left out.

    The routes returned give probabilities equal to those of the first.

    Args:
        device: "cuda", or "cpu" to try this benchmark without a GPU.

    Raises:
        DeviceError: every route is left out.
    """
    images = np.load(folder / IMAGES_FILE)[:size]
    routes: dict[str, Run] = {}
    failures = []
    for name, make in (*_onnx_routes(folder, images, device), *_torch_routes(preset, folder, images, device)):
        try:
            run = make()
            run()
        except Exception as error:  # noqa: BLE001  # ONNX Runtime's, PyTorch's and Triton's have no common base
            failures.append(f"{name}: {next(iter(str(error).splitlines()), repr(error))}")
            continue
        report = _compare(next(iter(routes.items()), (name, run)), (name, run), images)
        if report.passed:
            routes[name] = run
        else:
            failures.append(f"{name}: it differs\n\n{report}")
    if not routes:
        raise DeviceError(f"no route can be measured: {'; '.join(failures)}")
    return routes, failures


def _compare(reference: tuple[str, Run], candidate: tuple[str, Run], images: Array) -> Report:
    """Compare the probabilities of two routes."""
    (expected_name, expected), (name, found) = reference, candidate
    return compare(
        (expected_name, lambda _: expected()),
        (name, lambda _: found()),
        {"smooth noise": images},
        batch_sizes=(len(images),),
    )


def _onnx_routes(folder: Path, images: Array, device: str) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield functions that make the runs of ONNX Runtime, from host memory and from bound buffers with a CUDA graph.

    The function of `pdeinfer export` uses dilated convolutions; `--inline` slices and concatenates, as tf2onnx does.
    """
    import onnxruntime

    models = {
        "pdeinfer's function": (folder / FUSABLE_FILE).read_bytes(),
        "pdeinfer --inline": (folder / INLINED_FILE).read_bytes(),
        "tf2onnx": (folder / PLAIN_FILE).read_bytes(),
    }
    plain, graph = _providers(device, graph=False), _providers(device, graph=True)
    for name, model in models.items():
        yield f"{name}, ONNX Runtime", partial(_plain_run, model, plain, images)
        yield (
            f"{name}, ONNX Runtime, bound buffers and CUDA graph",
            partial(_bound_run, model, graph, images, device),
        )
        if device == "cuda" and TENSORRT in onnxruntime.get_available_providers():
            yield f"{name}, TensorRT", partial(_bound_run, model, [(TENSORRT, {}), *plain], images, device)


def _providers(device: str, *, graph: bool) -> list[Any]:
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    return [(CUDA, {"use_tf32": "0", "enable_cuda_graph": str(int(graph))})]


def _session(model: bytes, providers: list[Any]) -> Any:
    """Return a session on the first of the providers.

    Raises:
        DeviceError: it cannot be used; ONNX Runtime alone would fall back to the next provider.
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


def _plain_run(model: bytes, providers: list[Any], images: Array) -> Run:
    session = _session(model, providers)
    return lambda: np.asarray(session.run(None, {"image": images})[0])


def _bound_run(model: bytes, providers: list[Any], images: Array, device: str) -> Run:
    import onnxruntime

    session = _session(model, providers)
    classes = session.get_outputs()[0].shape[-1]
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((len(images), classes), np.float32), device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(images, device, 0))
    binding.bind_ortvalue_output("probabilities", output)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return np.array(output.numpy())  # a copy: on a CPU, numpy() returns the buffer itself

    return run


def _torch_routes(preset: Preset, folder: Path, images: Array, device: str) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield functions that make the runs of PyTorch, with the images on the device."""
    import torch

    from benchmarks.torch_network import Network

    def make(adapt: Callable[[Any], Any]) -> Run:
        network = Network(preset, list(np.load(folder / WEIGHTS_FILE).values())).eval().to(device)
        module, batch = adapt(network), torch.from_numpy(images).to(device)

        def run() -> Array:
            with torch.no_grad():
                return np.asarray(module(batch).cpu())

        return run

    yield "PyTorch", partial(make, lambda network: network)
    # As a CUDA graph. "max-autotune" would search for minutes, mostly among TF32 kernels.
    yield "torch.compile", partial(make, partial(torch.compile, dynamic=False, mode="reduce-overhead"))


if __name__ == "__main__":
    sys.exit(main())
