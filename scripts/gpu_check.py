"""Checks and measures everything on a GPU. Each part is a process of its own, so that no failure hides another.

The results go to a JSON file after each part. The exit code is 1 if a part failed; a part whose needs are missing is
skipped. `python -m benchmarks.gpu --write FOLDER`, on a machine with TensorFlow, writes the networks to measure.
"""

import argparse
import http.client
import io
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image

from benchmarks import gpu
from benchmarks.machine import describe
from benchmarks.networks import FUSABLE_FILE, IMAGES_FILE
from benchmarks.timing import time_in_turns
from pdeinfer import DeviceError, Predictor
from pdeinfer.checks.parity import TOLERANCE
from pdeinfer.checks.reference import compare_with_reference, read_reference
from pdeinfer.package import zoo
from pdeinfer.runtime import cuda
from pdeinfer.runtime.cuda_session import batch_sizes
from pdeinfer.runtime.session import create_session

ROOT = Path(__file__).parents[1]

Result: TypeAlias = dict[str, Any]  # "passed" (None: skipped), and what was found


class SkippedError(Exception):
    """What a part needs is missing."""


def main(argv: list[str] | None = None) -> int:
    """Run all parts, or one of them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_check", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build/gpu-check.json", help="the results (%(default)s)")
    parser.add_argument("--networks", type=Path, help="folder that `python -m benchmarks.gpu --write` wrote")
    parser.add_argument("--quick", action="store_true", help="small batches and short runs, to try the check on a CPU")
    parser.add_argument("--part", choices=PARTS, help="run this part alone and print its result")
    options = parser.parse_args(argv)
    if options.part:
        print(json.dumps(_run_part(options)))
        return 0
    results: dict[str, Result] = {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, (_, seconds) in PARTS.items():
        started = time.monotonic()
        results[name] = _run_in_process(name, 5 * seconds if options.quick else seconds, options)
        results[name]["seconds"] = round(time.monotonic() - started, 1)
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        outcome = {True: "ok", None: "skipped", False: "FAILED"}[results[name]["passed"]]
        print(f"{name}: {outcome}, {results[name]['seconds']} s {results[name].get('reason', '')}", flush=True)
    print(f"written to {options.output}")
    return 1 if any(result["passed"] is False for result in results.values()) else 0


def _run_in_process(name: str, seconds: float, options: argparse.Namespace) -> Result:
    command = [sys.executable, "-m", "scripts.gpu_check", "--part", name]
    command += ["--quick"] if options.quick else []
    command += ["--networks", str(options.networks.resolve())] if options.networks else []
    if name in SANITIZERS:
        sanitizer = shutil.which("compute-sanitizer")
        if sanitizer is None:
            return {"passed": None, "reason": "compute-sanitizer is not installed"}
        command = [sanitizer, "--tool", name, "--error-exitcode", "9", *command]
    # A session of its own: if it takes too long, its servers end with it.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
            problem = f"it ended with exit code {process.returncode}" if process.returncode else None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            problem = f"it took longer than {seconds} s"
    lines = [line for line in output.splitlines() if line.startswith('{"passed"')]
    result: Result = json.loads(lines[-1]) if lines else {}
    if problem or not lines:  # what it had found is kept
        problem = problem or "it printed no result"
        result |= {"passed": False, "reason": problem, "output": (output + errors)[-4000:]}
    return result


def _run_part(options: argparse.Namespace) -> Result:
    part, _ = PARTS[options.part]
    try:
        return {"passed": True, **part(options)}
    except SkippedError as error:
        return {"passed": None, "reason": str(error)}
    except Exception as error:  # noqa: BLE001  # the result of the part
        return {"passed": False, "reason": repr(error), "traceback": traceback.format_exc()}


def _check(condition: object, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


def machine(_: argparse.Namespace) -> Result:
    """Describe the GPU and the versions."""
    import onnxruntime

    if not cuda.has_cuda(onnxruntime):
        raise DeviceError(f"this ONNX Runtime has no CUDA, only {onnxruntime.get_available_providers()}")
    fields = "name,driver_version,memory.total,compute_cap"
    return {"gpu": _nvidia_smi(f"--query-gpu={fields}"), "machine": describe("onnxruntime-gpu", "torch")}


def operator(options: argparse.Namespace) -> Result:
    """Compare the fused operator with the scheme in float64: kinds of fields, shapes, numbers of steps."""
    try:
        from tests.kernels.layers import STRUCTURES, make_layer
    except ImportError as error:
        raise SkippedError(f"it needs {error.name}") from error
    shapes = [(1, 32, 32, 16), (3, 16, 16, 32), (2, 8, 8, 64), (2, 28, 28, 1), (1, 31, 33, 5), (1, 64, 64, 2)]
    shapes += [(1, 65, 64, 2), (2, 3, 1025, 3)]  # which do not fit into shared memory
    worst = 0.0
    for shape in shapes[:: 4 if options.quick else 1]:
        for num_steps in (1, 2) if options.quick else (1, 2, 5, 10):
            for structure in STRUCTURES:
                layer = make_layer(structure, shape, num_steps)
                model = layer.model()
                session = create_session(model.SerializeToString(), "cuda", 1, batch_size=shape[0])
                case = f"{structure} {shape} K={num_steps}"
                _check(session.pde_layers == "fused", f"{case}: the operator is not claimed")
                expected = layer.scheme()
                difference = np.abs(session.run("result", layer.feeds(model)) - expected).max()
                worst = max(worst, float(difference / np.abs(expected).max()))
                _check(worst < 1e-6, f"{case}: relative error {worst}")
    return {"worst_relative_error": worst, "shapes": len(shapes)}


def models(options: argparse.Namespace) -> Result:
    """Compare every bundled model with its TensorFlow original, at every batch size, on changed images, in threads."""
    found: Result = {name: _check_model(name, options.quick) for name in zoo.names()}
    with Predictor("cifar10-global", precision="int8", device="cuda", batch_size=8) as predictor:
        found["cifar10-global int8"] = {"cuda_graphs": predictor.info().cuda_graphs}
    try:
        Predictor(device="cuda:99")
    except DeviceError as error:
        found["cuda:99"] = str(error)
    else:
        raise AssertionError("cuda:99 was not refused")
    return {"models": found}


def _check_model(name: str, quick: bool) -> Result:
    package = zoo.load(name)
    report = compare_with_reference(package, "cuda")
    _check(report.passed, f"{name}: {report}")
    reference = read_reference(package)
    largest = 8 if quick else 256
    with Predictor(package, device="cuda", batch_size=largest) as predictor:
        info = predictor.info()
        _check(info.cuda_graphs, f"{name} runs without CUDA graphs")
        has_layers = package.card.preset.pde is not None
        _check(info.pde_layers == ("fused" if has_layers else "standard"), f"{name}: {info.pde_layers} PDE layers")

        def compare(start: int, size: int) -> float:
            rows = np.arange(start, start + size) % len(reference.images)
            difference = float(np.abs(predictor.predict_proba(reference.images[rows]) - expected[rows]).max())
            _check(difference <= TOLERANCE, f"{name}: {difference} from image {start} on, batch {size}")
            return difference

        expected = reference.probabilities
        sizes = {*batch_sizes(largest), 3, largest - 1, largest + 1}
        # Replays of one graph, with other images each time.
        worst = max(compare(7 * turn, size) for size in sizes for turn in range(2 if quick else 5))
        with ThreadPoolExecutor(8) as pool:
            calls = pool.map(lambda turn: compare(turn, 1 + turn % largest), range(16 if quick else 200))
            worst = max(worst, *calls)
    return {"worst_difference": worst, "pde_layers": info.pde_layers}


def server(options: argparse.Namespace) -> Result:
    """Serve over HTTP under load, load a model again meanwhile, and stop on SIGTERM; watch the GPU's memory."""
    seconds = 1 if options.quick else 15
    package = zoo.load("cifar10-global")
    reference = read_reference(package)
    labels = [package.card.preset.labels[index] for index in reference.probabilities.argmax(axis=1)]
    images = [_png(image) for image in reference.images]
    arguments = ["--max-batch-size", "8"] if options.quick else []
    with _running_server("cifar10-global", "digits-pde", *arguments) as (process, port, log):
        (served, _) = json.loads(_request(port, "GET", "/models")[1])["models"]
        _check(served["device"] == "cuda:0", f"it is served on {served['device']}")
        first = _load(port, images, labels, seconds, threads=32)
        before = _gpu_memory()
        change = json.dumps({"action": "reload"}).encode()
        headers = {"Authorization": "Bearer check", "Content-Type": "application/json"}
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(_load, port, images, labels, seconds, 32)
            for _ in range(3):
                status, body = _request(port, "POST", "/admin/models/cifar10-global", change, headers)
                _check(status == 200, f"reload: {status} {body!r}")
            second = loading.result()
        _load(port, images, labels, seconds, threads=32)
        after = _gpu_memory()
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = process.wait(timeout=40)
        stopped = time.monotonic() - started
        _check(code == 0, f"exit code {code} after SIGTERM: {log.read_text()[-2000:]}")
    if before is not None and after is not None:
        _check(after - before < 64, f"the GPU's memory grew from {before} to {after} MiB")
    memory = {"before_reloads_mib": before, "after_mib": after}
    runs = {name: served[name] for name in ("device", "pde_layers", "cuda_graphs")}
    return {"load": first, "load_during_reloads": second, "memory": memory, "stopped_after_s": stopped, **runs}


def speed(options: argparse.Namespace) -> Result:
    """Measure the networks in turns, beside PyTorch."""
    sizes, rounds = ((1, 4), 2) if options.quick else (gpu.BATCH_SIZES, 15)
    found: Result = {}
    for measured in gpu.measure(_networks(options), sizes, rounds):
        medians = {route: 1000 * timing.median for route, timing in measured.timings.items()}
        quartiles = {
            route: [1000 * timing.lower_quartile, 1000 * timing.upper_quartile]
            for route, timing in measured.timings.items()
        }
        entry: Result = {"milliseconds": medians, "quartiles": quartiles, "left_out": measured.left_out}
        if gpu.COMPILED in medians:
            best = min(medians[route] for route in (gpu.FUSED, gpu.GRAPHS) if route in medians)
            entry["times_as_fast_as_torch_compile"] = medians[gpu.COMPILED] / best
        found[f"{measured.network}, batch {measured.batch_size}"] = entry
        print(json.dumps({"passed": True, "networks": found}), flush=True)  # in case that the others take too long
    return {"networks": found}


def convolutions(options: argparse.Namespace) -> Result:
    """Measure the values of cudnn_conv_algo_search."""
    found: Result = {}
    folder = _networks(options) / gpu.PRESETS[0].name
    model = (folder / FUSABLE_FILE).read_bytes()
    for size in (1, 4) if options.quick else (1, 256):
        runs = {}
        for search in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"):
            cuda.CONVOLUTION_SEARCH = search
            runs[search] = gpu.bound_run(model, np.load(folder / IMAGES_FILE)[:size], fused=False)
        timings = time_in_turns(runs, rounds=2 if options.quick else 15)
        found[f"batch {size}"] = {search: 1000 * timing.median for search, timing in timings.items()}
    return {"milliseconds": found}


def sanitized(_: argparse.Namespace) -> Result:
    """Run the operator a few times, for compute-sanitizer to watch."""
    with Predictor("cifar10-global", device="cuda", batch_size=2) as predictor:
        predictor.predict_proba(np.zeros((3, 32, 32, 3), np.uint8))
        return {"pde_layers": predictor.info().pde_layers}


SANITIZERS = ("memcheck", "racecheck")

# Each part, and the seconds that it may take: eight and a half minutes together. torch.compile takes most of them.
PARTS: dict[str, tuple[Callable[[argparse.Namespace], Result], int]] = {
    "machine": (machine, 20),
    "operator": (operator, 40),
    "models": (models, 50),
    "server": (server, 80),
    "speed": (speed, 230),
    "convolutions": (convolutions, 30),
    "memcheck": (sanitized, 30),
    "racecheck": (sanitized, 30),
}


def _networks(options: argparse.Namespace) -> Path:
    if options.networks is None:
        raise SkippedError("it needs --networks FOLDER")
    return Path(options.networks)


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


@contextmanager
def _running_server(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "pdeinfer", "serve", *arguments, "--device", "cuda", "--port", "0"]
        environment = {**os.environ, "PDEINFER_ADMIN_KEYS": "check"}
        with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment) as process:
            try:
                deadline = time.monotonic() + 60
                while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
                    _check(process.poll() is None and time.monotonic() < deadline, f"no start: {log.read_text()}")
                    time.sleep(0.05)
                yield process, int(found[1]), log
            finally:
                process.kill()


def _load(port: int, images: list[bytes], labels: list[str], seconds: float, threads: int) -> Result:
    """Send images for some seconds from several threads; return what came back. All labels must be right."""
    end = time.monotonic() + seconds
    latencies: list[float] = []
    problems: list[str] = []

    def work(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < end and not problems:
            number = (number + 1) % len(images)
            started = time.monotonic()
            connection.request(
                "POST", "/classify?model=cifar10-global&top_k=1", images[number], {"Content-Type": "image/png"}
            )
            answer = connection.getresponse()
            body = answer.read()
            latencies.append(time.monotonic() - started)
            if answer.status != 200 or json.loads(body)["results"][0]["label"] != labels[number]:
                problems.append(f"{answer.status} {body!r}, expected {labels[number]}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    _check(not problems and latencies, f"under load: {problems or 'no answers'}")
    return {
        "images_per_second": len(latencies) / seconds,
        "median_ms": 1000 * statistics.median(latencies),
        "p99_ms": 1000 * float(np.quantile(latencies, 0.99)),
    }


def _request(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def _gpu_memory() -> int | None:
    """Return the MiB in use on the first GPU; None without nvidia-smi."""
    found = _nvidia_smi("--query-gpu=memory.used")
    return int(found.splitlines()[0]) if found else None


def _nvidia_smi(query: str) -> str | None:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
