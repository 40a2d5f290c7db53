"""Train, export, verify and serve a model, and classify real images with it: `make demo`."""

import json
import math
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image

from pdeinfer import ModelPackage, Prediction, Predictor
from pdeinfer.datasets import Split, load_dataset
from pdeinfer.spec.training_record import METRICS_FILE

FOLDER = Path("build/demo")
TRAIN = (sys.executable, "-m", "training.run", "digits-pde")
EXPORT = (sys.executable, "-m", "pdeinfer", "export", "--format", "all")
SERVE = (sys.executable, "-m", "pdeinfer", "serve", "--host", "127.0.0.1", "--port", "0")

START_SECONDS = 60
STOP_SECONDS = 30
LOG_TAIL_LINES = 20
ROW = "  {:<9} {:<80} {:>7}"


class StepError(Exception):
    """A step of the demo failed; the message holds its name and the reason, `log` its log file."""

    def __init__(self, step: str, log: Path, reason: object) -> None:
        super().__init__(f"the step {step!r} failed: {reason}")
        self.log = log


def main() -> int:
    """Run the demo and return its exit code: 0, 1 if a step failed, 130 if interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that child processes are stopped
    try:
        demo(FOLDER)
    except StepError as error:
        tail = error.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if error.log.exists() else []
        print(f"\n\ndemo: {error}\n\nThe end of {error.log}:", *tail, sep="\n    ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    return 0


def demo(folder: Path) -> None:
    """Run every step in `folder` and print a row for each.

    Raises:
        StepError: if a command fails or an answer is wrong.
    """
    run, package, images = folder / "run", folder / "digits-pde", folder / "images"
    for earlier in (run, package, images):
        shutil.rmtree(earlier, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)

    print(f"\n{ROW.format('step', f'result (files and logs in {folder})', 'seconds')}\n  {'-' * 98}")
    with step("train", folder / "train.log") as (log, result):
        run_command(log, *TRAIN, "--out", str(run))
        metrics = json.loads((run / METRICS_FILE).read_text())
        result.append(
            f"{metrics['preset']}, {metrics['recipe']['epochs']} epochs, {metrics['parameters']:,} parameters: "
            f"{metrics['test_accuracy']:.2%} of {metrics['test_images']} test images correct"
        )
    with step("export", folder / "export.log") as (log, result):
        run_command(log, *EXPORT, "--output", str(package), str(run))
        result.extend(describe_export(ModelPackage.read(package)))
    with server(folder / "serve.log", package) as process:
        with step("serve", folder / "serve.log") as (log, result):
            url = wait_until_ready(process, log)
            result.append(f"ready on {url}")
        with step("classify", folder / "serve.log") as (_, result):
            test = load_dataset("digits", None).test
            result.extend(
                classify(url, package, write_images(test, images), round(metrics["test_accuracy"] * len(test)))
            )
        with step("stop", folder / "serve.log") as (_, result):
            process.terminate()
            if code := process.wait(STOP_SECONDS):
                raise RuntimeError(f"the server ended with exit code {code}")
            result.append("SIGTERM, exit code 0")
    print(
        f"\nNext: .venv/bin/pdeinfer predict {min(images.iterdir())} --model {package}"
        f"\n      .venv/bin/pdeinfer serve {package}"
    )


@contextmanager
def step(name: str, log: Path) -> Iterator[tuple[Path, list[str]]]:
    """Time the block and print a row with the lines that it appends to the list; raise StepError if it fails."""
    if sys.stdout.isatty():
        print(ROW.format(name, "...", ""), end="\r", flush=True)
    started = time.perf_counter()
    lines: list[str] = []
    try:
        yield log, lines
    except Exception as error:
        raise StepError(name, log, error) from error
    print(ROW.format(name, lines[0], f"{time.perf_counter() - started:.1f}"), flush=True)
    for line in lines[1:]:
        print(ROW.format("", line, "").rstrip(), flush=True)


def run_command(log: Path, *command: str) -> None:
    """Run a command with its output in the log; raise RuntimeError unless it exits with 0."""
    with log.open("wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        raise RuntimeError(f"exit code {code}")


def describe_export(package: ModelPackage) -> Iterator[str]:
    """Yield a line about the files and one about each file's comparison with Keras."""
    kilobytes = {name: record.bytes / 1000 for name, record in package.card.files.items()}
    saved_model = sum(size for name, size in kilobytes.items() if name.startswith("saved_model/"))
    yield f"model.onnx {kilobytes['model.onnx']:.0f} kB (opset {package.card.opset}), saved_model {saved_model:.0f} kB"
    for name, report in package.card.parity.items():
        rows: list[dict[str, Any]] = report["comparisons"]
        if "top1_equal" not in rows[0]:  # fields and features
            largest = max(row["max_relative"] for row in rows)
            yield f"{name} = Keras: max relative difference {largest:.1e}"
            continue
        largest = max(row["max_absolute"] for row in rows)
        equal, count = (sum(row[key] for row in rows) for key in ("top1_equal", "count"))
        yield f"{name} = Keras: max |difference| {largest:.1e}, top-1 equal {equal:,}/{count:,}"


@contextmanager
def server(log: Path, package: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server for the duration of the block."""
    with (
        log.open("wb") as file,
        subprocess.Popen([*SERVE, str(package)], stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until /readyz answers 200 and return the server's URL."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode}")
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
        if found and httpx2.get(f"{found[1]}/readyz", trust_env=False).status_code == 200:
            return found[1]
        time.sleep(0.05)
    raise TimeoutError(f"the server is not ready after {START_SECONDS} s")


def write_images(split: Split, folder: Path) -> list[tuple[Path, str]]:
    """Write every image as a PNG; return the files and their labels."""
    folder.mkdir()
    files = []
    for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        file = folder / f"{number:03}-label-{label}.png"
        PIL.Image.fromarray(image[..., 0]).save(file)
        files.append((file, str(label)))
    return files


def classify(url: str, package: Path, files: list[tuple[Path, str]], expected_right: int) -> Iterator[str]:
    """Send each image in its own request, compare the answer with Predictor's, and yield lines of results.

    Raises:
        RuntimeError: if an answer differs or the number of correct answers is not that of the training.
    """
    milliseconds, right = [], 0
    with Predictor(package) as predictor, httpx2.Client(base_url=url, trust_env=False) as client:
        for file, label in files:
            content = file.read_bytes()
            started = time.perf_counter()
            response = client.post("/classify", files={"file": (file.name, content, "image/png")})
            milliseconds.append(1000 * (time.perf_counter() - started))
            (answer,) = response.raise_for_status().json()["results"]
            if not is_equal(answer, predictor.predict(file)):
                raise RuntimeError(f"{file}: the server's answer is not Predictor's: {answer}")
            right += answer["label"] == label
    if right != expected_right:
        raise RuntimeError(f"{right} correct answers, but {expected_right} after training")
    yield f"{len(files)} test images as PNG by POST /classify: {right / len(files):.2%} correct, as in training"
    yield (
        f"every answer equals Predictor's; a request takes {statistics.median(milliseconds):.1f} ms (median), "
        f"{statistics.quantiles(milliseconds, n=20)[-1]:.1f} ms (95 %)"
    )


def is_equal(answer: dict[str, Any], prediction: Prediction) -> bool:
    """Return whether the answer has the prediction's classes in order, and its scores within 1e-6."""
    return len(answer["top"]) == len(prediction.top) and all(
        (found["label"], found["index"]) == (entry.label, entry.index)
        and math.isclose(found["score"], entry.score, abs_tol=1e-6)
        for found, entry in zip(answer["top"], prediction.top, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
