"""Measures latency and throughput on a CUDA device, against PyTorch, without TF32.

The machine with the device needs no TensorFlow if `python -m benchmarks.gpu --write FOLDER` wrote the networks on
another one.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.networks import (
    FUSABLE_FILE,
    IMAGES_FILE,
    RESNET,
    WEIGHTS_FILE,
    pde_preset,
    write_networks,
)
from benchmarks.timing import Timing, time_in_turns
from pdeinfer import DeviceError, PdeinferError
from pdeinfer.arrays import Array
from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.parity import compare
from pdeinfer.checks.report import Report
from pdeinfer.runtime.cuda import CUDA, CudaOptions, has_cuda
from pdeinfer.runtime.kernel import register_kernel
from pdeinfer.runtime.session import create_session
from pdeinfer.spec.presets import Preset

BATCH_SIZES = (1, 256, 32)  # the most important first: time on a GPU may end

PRESETS = [pde_preset(1), RESNET, pde_preset(5)]

PLAIN = "ONNX Runtime"
GRAPHS = "ONNX Runtime, CUDA graph"
FUSED = "fused operator, CUDA graph"
SESSION = "pdeinfer's session, from the CPU's memory"
TORCH = "PyTorch"
COMPILED = "torch.compile"

Run: TypeAlias = Callable[[], Array]  # classifies one fixed batch


@dataclass(frozen=True, slots=True)
class Measured:
    """One network at one batch size.

    Attributes:
        timings: by route.
        left_out: a line for each route that could not run or computes something else.
    """

    network: str
    batch_size: int
    timings: dict[str, Timing]
    left_out: list[str]


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
        write_networks(PRESETS, written, max(BATCH_SIZES))
        written.rename(folder)


def _measure(networks: Path | None) -> int:
    import onnxruntime

    if not has_cuda(onnxruntime):
        raise DeviceError("needs a CUDA device, onnxruntime-gpu and PyTorch with CUDA")
    print(machine("onnxruntime-gpu", "torch"))
    left_out = 0
    with tempfile.TemporaryDirectory() as scratch:
        if networks is None:
            require_tensorflow()
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")  # it would take all of the GPU's memory
            networks = Path(scratch)
            write_networks(PRESETS, networks, max(BATCH_SIZES))
        for measured in measure(networks):
            print(f"### {measured.network}, batch {measured.batch_size}\n")
            rows = [
                [name, milliseconds(time), f"{measured.batch_size / time.median:,.0f}"]
                for name, time in measured.timings.items()
            ]
            print(table(["route", "milliseconds, median (quartiles)", "images a second"], rows))
            print("".join(f"Left out, {line}\n\n" for line in measured.left_out), end="", flush=True)
            left_out += len(measured.left_out)
    return 1 if left_out else 0


def measure(networks: Path, batch_sizes: tuple[int, ...] = BATCH_SIZES, rounds: int = 25) -> Iterator[Measured]:
    """Yield the times of every network in a folder that `--write` wrote, the routes in turns.

    Raises:
        DeviceError: no route can be measured.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # for every library of NVIDIA's
    for size in batch_sizes:
        for preset in PRESETS:
            routes, left_out = measured_routes(preset, networks / preset.name, size)
            yield Measured(preset.name, size, time_in_turns(routes, rounds=rounds), left_out)


def measured_routes(preset: Preset, folder: Path, size: int) -> tuple[dict[str, Run], list[str]]:
    """Return the routes that can run the network in a folder, and a line per route that is left out.

    The routes returned give probabilities equal to those of the first.

    Raises:
        DeviceError: every route is left out.
    """
    images = np.load(folder / IMAGES_FILE)[:size]
    routes: dict[str, Run] = {}
    failures = []
    for name, make in (*_onnx_routes(folder, images), *_torch_routes(preset, folder, images)):
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


def _onnx_routes(folder: Path, images: Array) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield functions that make the runs of ONNX Runtime: plain, and with the images on the device before."""
    model = (folder / FUSABLE_FILE).read_bytes()
    yield PLAIN, partial(_plain_run, model, images)
    yield GRAPHS, partial(bound_run, model, images, fused=False)
    yield FUSED, partial(bound_run, model, images, fused=True)
    yield SESSION, partial(_session_run, model, images)


def _plain_run(model: bytes, images: Array) -> Run:
    """Return a run without graphs and bound buffers, as applications make it that do nothing for it."""
    session = _open(model, len(images), graphs=False, fused=False)
    return lambda: np.asarray(session.run(["probabilities"], {"image": images})[0])


def bound_run(model: bytes, images: Array, *, fused: bool) -> Run:
    """Return a run with the images on the device, replayed as a CUDA graph."""
    import onnxruntime

    session = _open(model, len(images), graphs=True, fused=fused)

    def allocate(shape: tuple[int, ...], dtype: type) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)

    source, output = (
        allocate(images.shape, np.uint8),
        allocate((len(images), session.get_outputs()[0].shape[-1]), np.float32),
    )
    source.update_inplace(images)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", source)
    binding.bind_ortvalue_output("probabilities", output)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return np.array(output.numpy())

    return run


def _session_run(model: bytes, images: Array) -> Run:
    """Return a run of the session that `Predictor` uses."""
    session = create_session(model, "cuda", 1, batch_size=len(images))
    return lambda: session.run("probabilities", {"image": images})


def _open(model: bytes, batch_size: int, *, graphs: bool, fused: bool) -> Any:
    """Return a session with the options of pdeinfer's own, for this thread.

    Raises:
        DeviceError: the operator is not available, or CUDA cannot be used.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if fused and not register_kernel(options, "cuda:0"):
        raise DeviceError("the operator is not available")
    providers = [CudaOptions(0, batch_size).provider(graphs=graphs), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != CUDA:
        raise DeviceError(f"CUDA cannot be used: ONNX Runtime fell back to {session.get_providers()}")
    return session


def _torch_routes(preset: Preset, folder: Path, images: Array) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield functions that make the runs of PyTorch, with the images on the device."""

    def make(is_compiled: bool) -> Run:
        import torch

        from benchmarks.torch_network import Network

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # tries cuDNN's algorithms out, as ONNX Runtime may
        network = Network(preset, list(np.load(folder / WEIGHTS_FILE).values())).eval().to("cuda")
        # As a CUDA graph. "max-autotune" would search for minutes, mostly among TF32 kernels.
        module = torch.compile(network, dynamic=False, mode="reduce-overhead") if is_compiled else network
        batch = torch.from_numpy(images).to("cuda")

        def run() -> Array:
            with torch.no_grad():
                return np.asarray(module(batch).cpu())

        return run

    yield TORCH, partial(make, is_compiled=False)
    yield COMPILED, partial(make, is_compiled=True)


if __name__ == "__main__":
    sys.exit(main())
