"""The wheel, installed with `[cpu,serve]` alone, predicts and serves the bundled models without TensorFlow."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from hatch_build import CUDA_LIBRARY, LIBRARY
from pdeinfer import __version__
from pdeinfer.package import zoo
from tests.servers import ROOT, wait_for_log

pytestmark = pytest.mark.slow

DIGIT = ROOT / "examples/seven.png"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its pinned dependencies, as the Dockerfile makes it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    constraints = ROOT / "requirements/constraints.txt"
    subprocess.run([*pip, "install", "--quiet", "--constraint", constraints, f"{wheel}[cpu,serve]"], check=True)
    return folder


def run_installed(environment: Path, program: str, *arguments: str | Path) -> str:
    """Run a program of the environment outside the source tree, without this process's variables; return its stdout."""
    command = [environment / "bin" / program, *arguments]
    done = subprocess.run(command, cwd=environment, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("pdeinfer", "serving", "training")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.parent != ROOT / "pdeinfer/kernels"
    } - {"training/report.py"}  # it needs benchmarks/
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"pdeinfer-{__version__}.dist-info/")}

    platform = f"linux_{os.uname().machine}" if LIBRARY in names else "any"
    assert wheel.name == f"pdeinfer-{__version__}-py3-none-{platform}.whl"
    assert names - {LIBRARY, CUDA_LIBRARY} == sources
    assert {"pdeinfer/py.typed", f"pdeinfer/models/{zoo.DEFAULT_MODEL}/model.onnx"} <= names


def test_the_extras_cpu_and_serve_install_pinned_versions_and_no_training_tools(environment: Path) -> None:
    program = "from importlib.metadata import *; print(*(f'{d.name}=={d.version}' for d in distributions()))"
    installed = set(run_installed(environment, "python", "-c", program).split()) - {f"pdeinfer=={__version__}"}
    names = {line.partition("==")[0].lower() for line in installed}

    assert installed <= set((ROOT / "requirements/constraints.txt").read_text().split())
    assert {"onnxruntime", "numpy", "fastapi"} <= names
    assert not {"tensorflow", "keras", "tf2onnx", "onnx", "hatchling", "pytest"} & names


def test_the_installed_package_lists_the_bundled_models(environment: Path) -> None:
    first_words = {line.split()[0] for line in run_installed(environment, "pdeinfer", "list").splitlines() if line}

    assert {zoo.DEFAULT_MODEL} <= set(zoo.names()) <= first_words


def test_the_installed_package_predicts(environment: Path) -> None:
    assert json.loads(run_installed(environment, "pdeinfer", "predict", "--json", DIGIT))["label"] == "7"


def test_the_installed_package_runs_pde_layers_in_the_operator_of_its_wheel(environment: Path, wheel: Path) -> None:
    program = "import pdeinfer; print(pdeinfer.Predictor(device='cpu').info().pde_layers)"

    expected = "standard" if wheel.name.endswith("-any.whl") else "fused"
    assert run_installed(environment, "python", "-c", program).strip() == expected


def test_the_installed_server_serves_every_bundled_model_until_sigterm(environment: Path, tmp_path: Path) -> None:
    with running_server(environment, tmp_path / "log") as (process, port):
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            answers = [
                client.post("/classify", params={"model": name}, files={"file": DIGIT.read_bytes()})
                for name in zoo.names()
            ]
        process.send_signal(signal.SIGTERM)

        assert [answer.status_code for answer in answers] == [200] * len(zoo.names())
        assert process.wait(10) == 0


@contextmanager
def running_server(environment: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    command = [environment / "bin/pdeinfer", "serve", "--host", "0.0.0.0", "--port", "0"]  # noqa: S104  # as in the image
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=environment, env={}, stdout=file, stderr=file) as process,
    ):
        try:
            yield process, int(wait_for_log(process, log, r"running on http://0\.0\.0\.0:(\d+)")[1])
        finally:
            process.kill()
