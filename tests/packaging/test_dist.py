"""`make dist`: the wheels run in bare environments of the oldest and the newest Python and dependencies."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hatch_build import CUDA_LIBRARY, LIBRARY
from pdeinfer import __version__
from scripts import dist
from tests.servers import ROOT

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ here")
DIGIT = ROOT / "examples/seven.png"
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete `make dist`, which checks what it makes."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "scripts.dist", "--output", folder, cwd=ROOT)
    return folder


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pythons() -> list[str]:
    """Return the oldest Python that is supported, which runs the tests, and the newest here."""
    found = []
    for minor in range(20, 11, -1):
        python = shutil.which(f"python3.{minor}")
        # The command may be a shim without a Python behind it.
        if python and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            found.append(python)
    return [sys.executable, *found[:1]]


def oldest() -> list[str]:
    compiled = run(*UV, "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--only-binary", ":all:",
                   "--extra", "cpu", "--no-annotate", "--no-header", ROOT / "pyproject.toml")  # fmt: skip
    return compiled.splitlines()


def newest() -> list[str]:
    return ["--constraint", str(ROOT / "requirements/constraints.txt")]


@needs_compiler
def test_there_are_wheels_with_the_operator_for_old_systems_a_pure_one_and_the_sources(built: Path) -> None:
    names = {path.name for path in built.iterdir()}
    machines = ["x86_64"] + ["aarch64"] * bool(shutil.which(dist.CROSS_COMPILER))

    assert names == {
        f"pdeinfer-{__version__}.tar.gz",
        f"pdeinfer-{__version__}-py3-none-any.whl",
        *(
            f"pdeinfer-{__version__}-py3-none-manylinux2014_{machine}.manylinux_2_17_{machine}.whl"
            for machine in machines
        ),
    }
    for path in built.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            libraries = {name for name in archive.namelist() if name.endswith(".so")}
        assert libraries == (set() if path.name.endswith("-any.whl") else {LIBRARY, CUDA_LIBRARY})


def test_the_sources_hold_what_tests_and_documentation_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"Makefile", "CHANGELOG.md", "docs/index.md", "deploy/compose/compose.yaml", "tests/servers.py"} <= names
    assert not {name for name in names if name.endswith((".so", ".pyc"))}


@needs_compiler
@pytest.mark.parametrize(
    ("python", "dependencies"), [(sys.executable, oldest), *((python, newest) for python in pythons())]
)
@pytest.mark.parametrize("kind", ["manylinux", "any"])
def test_a_wheel_predicts_in_a_bare_environment(
    built: Path, tmp_path: Path, python: str, dependencies: Callable[[], list[str]], kind: str
) -> None:
    (wheel,) = (path for path in built.glob(f"*-py3-none-{kind}*.whl") if "aarch64" not in path.name)
    run(*UV, "venv", "--quiet", "--python", python, tmp_path / "venv")
    install = [*UV, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", tmp_path / "venv/bin/python"]
    run(*install, f"{wheel}[cpu]", *dependencies())

    program = "import pdeinfer; print(pdeinfer.Predictor(device='cpu').info().pde_layers)"
    answer = run(tmp_path / "venv/bin/pdeinfer", "predict", "--json", DIGIT, cwd=tmp_path, env={})

    assert json.loads(answer)["label"] == "7"
    layers = run(tmp_path / "venv/bin/python", "-c", program, cwd=tmp_path, env={}).strip()
    assert layers == ("fused" if kind == "manylinux" else "standard")
