"""The wheel contains the operator libraries if they can be compiled; else it is pure Python, and the build says so."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import hatch_build
from tests.servers import ROOT

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ here")
SOURCES = ROOT / "pdeinfer/kernels"


BUILDS = [(hatch_build.build_library, "solver.cc"), (hatch_build.build_cuda_library, "cuda_operator.cc")]


def build_wheel(folder: Path, *, damaged: str | None = None, **environment: str) -> tuple[Path, str]:
    """Build the wheel from a copy of the sources, one of them perhaps damaged; return it and the build's output."""
    project = folder / "project"
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        project.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project)
    for name in ("pdeinfer/kernels", "serving", "training"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pdeinfer/version.py", project / "pdeinfer")
    if damaged:
        (project / "pdeinfer/kernels" / damaged).write_text("no C++", encoding="utf-8")
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
def test_the_wheel_contains_the_libraries_and_a_platform_tag_but_no_sources(tmp_path: Path) -> None:
    wheel, output = build_wheel(tmp_path)

    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")
    assert "built with its fused operator" in output
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name for name in archive.namelist() if "kernels" in name}
        assert libraries == {hatch_build.LIBRARY, hatch_build.CUDA_LIBRARY}
        (tags,) = (name for name in archive.namelist() if name.endswith("/WHEEL"))
        assert b"Root-Is-Purelib: false" in archive.read(tags)


@pytest.mark.parametrize(
    ("compiler", "kernel", "expected"),
    [
        ("x86_64", "x86_64", "x86_64"),
        ("aarch64", "x86_64", "aarch64"),
        ("powerpc64le", "ppc64le", "ppc64le"),
        ("i586", "x86_64", "i686"),
        ("arm", "armv6l", "armv6l"),
        ("arm", "aarch64", "armv7l"),
    ],
)
def test_the_tag_of_a_wheel_is_one_that_pip_takes_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, compiler: str, kernel: str, expected: str
) -> None:
    own = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*own[:4], kernel)))

    assert hatch_build.tag_machine(compiler) == expected


@needs_compiler
def test_a_wheel_whose_operator_for_cuda_does_not_compile_keeps_the_one_for_cpus(tmp_path: Path) -> None:
    wheel, output = build_wheel(tmp_path, damaged="cuda_operator.cc")

    assert "without its operator for CUDA" in output
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if "kernels" in name] == [hatch_build.LIBRARY]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PATH": "/nowhere"}, "there is no C++ compiler"),
        ({"CXX": "/nowhere/g++"}, "/nowhere/g++"),
        ({"CXX": "false"}, "false failed"),
    ],
)
def test_without_a_compiler_the_wheel_is_pure_and_one_line_says_why(
    tmp_path: Path, environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    wheel, output = build_wheel(tmp_path, **environment)

    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "kernels" in name]
    (line,) = (line for line in output.splitlines() if "fused operator" in line)
    assert "without" in line
    assert reason in line


@pytest.mark.parametrize("build", [build for build, _ in BUILDS])
def test_systems_other_than_linux_have_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., object]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(hatch_build.KernelNotBuiltError, match="darwin"):
        build(SOURCES, tmp_path / "library.so")


@needs_compiler
@pytest.mark.parametrize(("build", "source"), BUILDS)
def test_a_failed_build_removes_the_old_library(tmp_path: Path, build: Callable[..., object], source: str) -> None:
    sources = shutil.copytree(SOURCES, tmp_path / "kernels")
    library = tmp_path / "library.so"
    library.write_text("an earlier one", encoding="utf-8")
    (sources / source).write_text("no C++", encoding="utf-8")

    with pytest.raises(hatch_build.KernelNotBuiltError, match=rf"g\+\+ failed: .*{source}"):
        build(sources, library)

    assert not library.exists()


@needs_compiler
def test_a_full_disk_leaves_no_part_of_a_library(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_text("an earlier one", encoding="utf-8")
    (tmp_path / f".library.so.{os.getpid()}").symlink_to("/dev/full")  # the name under which it is first written

    with pytest.raises(hatch_build.KernelNotBuiltError, match=r"library\.so: .*No space left"):
        hatch_build.build_cuda_library(SOURCES, library)

    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.touch()  # no folder: so that root cannot write there either

    with pytest.raises(hatch_build.KernelNotBuiltError, match=str(folder)):
        hatch_build.build_cuda_library(SOURCES, folder / "library.so")


@needs_compiler
@pytest.mark.parametrize("build", [build for build, _ in BUILDS])
def test_the_build_replaces_the_old_library_by_a_new_file(tmp_path: Path, build: Callable[..., object]) -> None:
    library = tmp_path / "library.so"
    library.write_text("an earlier one", encoding="utf-8")
    with library.open(encoding="utf-8") as opened:
        build(SOURCES, library)
        assert opened.read() == "an earlier one"
    assert library.read_bytes().startswith(b"\x7fELF")
    assert list(tmp_path.iterdir()) == [library]


def dynamic_section(library: Path) -> tuple[set[str], list[str]]:
    """Return the names of the libraries that a library needs, and all words that objdump says about it."""
    dynamic = subprocess.run(["objdump", "-p", library], capture_output=True, text=True, check=True).stdout
    needed = {line.split()[1].partition(".")[0] for line in dynamic.splitlines() if "NEEDED" in line}
    return needed - {f"ld-linux-{os.uname().machine.replace('_', '-')}"}, dynamic.split()


def newest_glibc(words: list[str]) -> tuple[int, ...]:
    """Return the version of glibc that a library needs. 2.17 is of 2012; the manylinux2014 images have it."""
    return max(tuple(map(int, word[6:].split("."))) for word in words if word.startswith("GLIBC_2"))


@needs_compiler
def test_the_library_depends_on_nothing_but_an_old_libc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ -Wall -Wextra -Werror")
    hatch_build.build_library(SOURCES, tmp_path / "library.so")

    needed, words = dynamic_section(tmp_path / "library.so")
    assert needed == {"libc"}
    assert newest_glibc(words) <= (2, 17)


@needs_compiler
def test_the_library_for_cuda_depends_on_nothing_but_libc_and_is_never_unloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ -Wall -Wextra -Werror")
    hatch_build.build_cuda_library(SOURCES, tmp_path / "library.so")

    needed, words = dynamic_section(tmp_path / "library.so")
    assert needed <= {"libc", "libdl", "libpthread"}  # parts of libc before glibc 2.34
    assert newest_glibc(words) <= (2, 17)
    assert int(words[words.index("FLAGS_1") + 1], 16) & 0x8  # DF_1_NODELETE


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="there is no aarch64-linux-gnu-g++ here")
def test_it_compiles_for_aarch64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "aarch64-linux-gnu-g++ -Wall -Wextra -Werror")

    assert hatch_build.build_library(SOURCES, tmp_path / "library.so") == "aarch64"
    hatch_build.build_cuda_library(SOURCES, tmp_path / "cuda.so")

    for name in ("library.so", "cuda.so"):
        assert (tmp_path / name).read_bytes()[18] == 183  # EM_AARCH64
        assert newest_glibc(dynamic_section(tmp_path / name)[1]) <= (2, 17)


@needs_compiler
class TestOnnxRuntimeHeader:
    """kernels/onnxruntime.h against ONNX Runtime's own header, where it is installed.

    Debian's package libonnxruntime-dev has it. ONNXRUNTIME_INCLUDE_DIR names another folder.
    """

    OFFICIAL = "onnxruntime_c_api.h"

    @pytest.fixture
    def include(self) -> str:
        named = os.environ.get("ONNXRUNTIME_INCLUDE_DIR")
        folders = [Path(named)] if named else [Path(root, "include/onnxruntime") for root in ("/usr/local", "/usr")]
        for folder in folders:
            if (folder / self.OFFICIAL).exists():
                return f"-I{folder}"
        pytest.skip(f"there is no {self.OFFICIAL} here")

    @staticmethod
    def compile(source: Path, include: str) -> None:
        command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-Wno-invalid-offsetof", include, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_entries_and_constants_have_the_official_positions_and_values(self, tmp_path: Path, include: str) -> None:
        ours = (SOURCES / "onnxruntime.h").read_text(encoding="utf-8")
        entries = [
            (table, entry)
            for table, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", ours, re.MULTILINE | re.DOTALL)
            for entry in re.findall(r"^  \S.*?\(\*(\w+)\)\(", body, re.MULTILINE)
        ]
        constants = re.findall(r"(\w+) = \d+", ours)
        assert {table for table, _ in entries} == {"OrtCustomOp", "OrtApi", "OrtApiBase"}
        assert ("OrtApi", "KernelContext_ParallelFor") in entries
        assert "ORT_FAIL" in constants
        lines = [
            f"#include <{self.OFFICIAL}>",
            "namespace ours {",
            f'#include "{SOURCES / "onnxruntime.h"}"',
            "}",
            *(
                f"static_assert(offsetof(ours::{table}, {entry}) == offsetof({table}, {entry}));"
                for table, entry in entries
            ),
            *(f"static_assert(int(ours::{constant}) == int({constant}));" for constant in constants),
        ]
        source = tmp_path / "positions.cc"
        source.write_text("\n".join(lines), encoding="utf-8")
        self.compile(source, include)

    @pytest.mark.parametrize("source", ["operator.cc", "cuda_operator.cc"])
    def test_the_operator_compiles_with_the_official_signatures(
        self, tmp_path: Path, include: str, source: str
    ) -> None:
        sources = shutil.copytree(SOURCES, tmp_path / "kernels")
        (sources / "onnxruntime.h").write_text(f"#include <{self.OFFICIAL}>", encoding="utf-8")
        self.compile(sources / source, include)
