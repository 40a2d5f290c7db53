"""The wheel has the operator's library where it can be compiled, and is pure Python, and says so, where it cannot."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hatch_build
from tests.servers import ROOT

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ here")
SOURCES = ROOT / "pdeinfer/kernels"


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime's headers, found as the build finds them."""
    folder = tmp_path_factory.mktemp("headers")
    try:
        return hatch_build.find_headers(folder)
    except hatch_build.KernelNotBuiltError as error:
        pytest.skip(str(error))


def build_wheel(folder: Path, **environment: str) -> tuple[Path, str]:
    """Build the wheel of a copy of the sources; return it and what the build said."""
    project = folder / "project"
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        project.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project)
    for name in ("pdeinfer/kernels", "serving", "training"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pdeinfer/version.py", project / "pdeinfer")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", project],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").iterdir()
    return wheel, done.stdout + done.stderr


@needs_compiler
def test_the_wheel_has_the_library_and_this_platforms_tag_and_no_source(tmp_path: Path, headers: Path) -> None:
    wheel, said = build_wheel(tmp_path, ONNXRUNTIME_INCLUDE_DIR=str(headers))

    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")
    assert "built with its fused kernel" in said
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if "kernels" in name] == [hatch_build.LIBRARY]
        (tags,) = (name for name in archive.namelist() if name.endswith("/WHEEL"))
        assert b"Root-Is-Purelib: false" in archive.read(tags)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": "/nowhere"}, "there is no C++ compiler"),
        ({"CXX": "/nowhere/g++"}, "/nowhere/g++"),
        ({"CXX": "false"}, "false failed"),
        ({"CXX": "g++", "ONNXRUNTIME_INCLUDE_DIR": "/nowhere"}, "no onnxruntime_c_api.h in ONNXRUNTIME_INCLUDE_DIR"),
    ],
)
def test_without_compiler_or_headers_the_wheel_is_pure_and_one_line_says_why(
    tmp_path: Path, environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    wheel, said = build_wheel(tmp_path, **environment)

    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "kernels" in name]
    (line,) = (line for line in said.splitlines() if "kernel" in line)
    assert "without its fused kernel, and works, but slower" in line
    assert reason in line


@needs_compiler
def test_a_library_that_cannot_be_renewed_is_not_left(
    tmp_path: Path, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXRUNTIME_INCLUDE_DIR", str(headers))
    sources = shutil.copytree(SOURCES, tmp_path / "kernels")
    library = tmp_path / "library.so"
    library.write_text("an earlier one")
    (sources / "solver.cc").write_text("no C++")

    with pytest.raises(hatch_build.KernelNotBuiltError, match=r"g\+\+ failed: .*solver\.cc"):
        hatch_build.build_library(sources, library)

    assert not library.exists()


@needs_compiler
def test_the_library_needs_nothing_but_an_old_libc(
    tmp_path: Path, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXRUNTIME_INCLUDE_DIR", str(headers))
    monkeypatch.setenv("CXX", "g++ -Wall -Wextra -Werror")
    hatch_build.build_library(SOURCES, tmp_path / "library.so")

    dynamic = subprocess.run(
        ["objdump", "-p", tmp_path / "library.so"], capture_output=True, text=True, check=True
    ).stdout
    needed = {line.split()[1].partition(".")[0] for line in dynamic.splitlines() if "NEEDED" in line}
    assert needed <= {"libc", f"ld-linux-{os.uname().machine.replace('_', '-')}"}
    versions = {tuple(map(int, word[6:].split("."))) for word in dynamic.split() if word.startswith("GLIBC_2")}
    assert max(versions) <= (2, 17)  # of 2012, as in the manylinux2014 images


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="there is no aarch64-linux-gnu-g++ here")
def test_it_compiles_for_aarch64(tmp_path: Path, headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXRUNTIME_INCLUDE_DIR", str(headers))
    monkeypatch.setenv("CXX", "aarch64-linux-gnu-g++ -Wall -Wextra -Werror")

    assert hatch_build.build_library(SOURCES, tmp_path / "library.so") == "aarch64"

    assert (tmp_path / "library.so").read_bytes()[18] == 183  # EM_AARCH64
