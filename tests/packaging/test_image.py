"""What the Dockerfile builds: a wheel, and an environment that serves the bundled models without TensorFlow."""

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import PIL.Image
import pytest

from hatch_build import LIBRARY
from pdeinfer import __version__
from pdeinfer.package import zoo
from tests.packaging.dockerfile import ROOT, build, read_stages
from tests.servers import wait_for_log

BUILD, RUNTIME = read_stages()

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build stage's file system, as far as its own steps made it."""
    root = tmp_path_factory.mktemp("image")
    build(BUILD, root)
    return root


@pytest.fixture(scope="module")
def wheel(image: Path) -> Path:
    (wheel,) = (image / "dist").iterdir()
    return wheel


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(path)
    return path


def run_in_image(image: Path, *command: str | Path) -> str:
    """Run a program of the image in an empty place, with nothing of this environment, and return its stdout."""
    program, *arguments = command
    done = subprocess.run(
        [image / "opt/pdeinfer/bin" / program, *arguments],
        cwd=image / "opt",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@slow
def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    metadata = f"pdeinfer-{__version__}.dist-info/"
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("pdeinfer", "serving", "training")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.parent != ROOT / "pdeinfer/kernels"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(metadata)}

    platform = f"linux_{os.uname().machine}" if LIBRARY in names else "any"
    assert wheel.name == f"pdeinfer-{__version__}-py3-none-{platform}.whl"
    assert names - {LIBRARY} == sources
    assert {"pdeinfer/py.typed", f"pdeinfer/models/{zoo.DEFAULT_MODEL}/model.onnx"} <= names


@slow
def test_the_image_has_neither_tensorflow_nor_tools_nor_pip(image: Path) -> None:
    distributions = run_in_image(
        image, "python", "-c", "from importlib.metadata import *; print(*(d.name.lower() for d in distributions()))"
    )

    assert {"pdeinfer", "onnxruntime", "numpy", "fastapi"} <= set(distributions.split())
    assert not {"tensorflow", "keras", "tf2onnx", "pip", "hatchling", "pytest"} & set(distributions.split())


@slow
def test_the_image_has_the_pinned_versions(image: Path) -> None:
    program = "from importlib.metadata import *; print(*(f'{d.name}=={d.version}' for d in distributions()))"
    installed = set(run_in_image(image, "python", "-c", program).split()) - {f"pdeinfer=={__version__}"}

    assert installed <= set((ROOT / "requirements/constraints.txt").read_text().split())


@slow
def test_the_image_lists_the_bundled_models(image: Path) -> None:
    first_words = {line.split()[0] for line in run_in_image(image, "pdeinfer", "list").splitlines()}

    assert {zoo.DEFAULT_MODEL} <= set(zoo.names()) <= first_words


@slow
def test_the_image_predicts(image: Path, digit: Path) -> None:
    answer = json.loads(run_in_image(image, "pdeinfer", "predict", "--json", digit))

    assert answer["label"] in zoo.load(zoo.DEFAULT_MODEL).card.preset.labels


@slow
def test_the_image_runs_pde_layers_in_the_operator_that_its_wheel_has(image: Path, wheel: Path) -> None:
    program = "import pdeinfer; print(pdeinfer.Predictor(device='cpu').info().pde_layers)"

    expected = "standard" if wheel.name.endswith("-any.whl") else "fused"
    assert run_in_image(image, "python", "-c", program).strip() == expected


@slow
def test_the_entrypoint_serves_the_bundled_models_and_sigterm_ends_it_with_0(image: Path, digit: Path) -> None:
    health_check = next(instruction for instruction in RUNTIME if instruction.name == "HEALTHCHECK").exec_form()
    with running_entrypoint(image, digit.with_name("log")) as (process, port):
        probe = [
            image / "opt/pdeinfer/bin" / health_check[0],
            *(part.replace("8000", port) for part in health_check[1:]),
        ]
        deadline = time.monotonic() + 30
        while subprocess.run(probe, env={}, stderr=subprocess.DEVNULL, check=False).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            models = client.get("/models").json()["models"]
            answers = [
                client.post("/classify", params={"model": name}, files={"file": digit.read_bytes()})
                for name in zoo.names()
            ]
        process.send_signal(signal.SIGTERM)

        assert tuple(model["name"] for model in models) == zoo.names()
        assert [answer.status_code for answer in answers] == [200] * len(zoo.names())
        assert process.wait(10) == 0


@contextmanager
def running_entrypoint(image: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    program, *arguments = next(line for line in RUNTIME if line.name == "ENTRYPOINT").exec_form()
    command = [image / "opt/pdeinfer/bin" / program, *(part.replace("8000", "0") for part in arguments)]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=image / "opt", env={}, stdout=file, stderr=file) as process,
    ):
        try:
            yield process, wait_for_log(process, log, r"running on http://0\.0\.0\.0:(\d+)")[1]
        finally:
            process.kill()


def test_the_runtime_stage_is_the_environment_alone_and_runs_as_a_fixed_user() -> None:
    runtime = {instruction.name: instruction.argument for instruction in RUNTIME}

    assert [line.argument for line in RUNTIME if line.name == "COPY"] == ["--from=build /opt/pdeinfer /opt/pdeinfer"]
    assert "RUN" not in runtime
    assert runtime["USER"] == "10001:10001"
    assert runtime["FROM"] == BUILD[0].argument.removesuffix(" AS build")


def test_dockerignore_lets_in_exactly_what_is_copied() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in BUILD if line.name == "COPY" for source in line.argument.split()[:-1]}

    assert let_in == copied
