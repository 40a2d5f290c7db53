"""The build hook: compiles pdeinfer/kernels if there is a C++ compiler; otherwise the wheel is pure Python.

It makes two libraries of one operator: for CPUs, and for CUDA; neither the build nor loading the library needs CUDA.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "pdeinfer/kernels/libpdeinfer.so"
CUDA_LIBRARY = "pdeinfer/kernels/libpdeinfer_cuda.so"

# For each machine its solvers: the symbol in the library, the name for users, the lanes, the compiler flags. On Zen 5,
# tuning for Ice Lake and -funroll-loops were the fastest flags tried: 6 % faster than plain -O3 at K = 5 with AVX-512,
# 16 % with AVX2.
TUNED = "-mtune=icelake-server"
SOLVERS = {
    "x86_64": [
        ("kBaseline", "baseline", 4, [TUNED]),
        ("kAvx2", "avx2", 8, [TUNED, "-mavx2", "-mfma"]),
        ("kAvx512", "avx512", 16, [TUNED, "-mavx512f"]),
    ],
}
BASELINE = [("kBaseline", "baseline", 4, [])]  # for every other machine, such as aarch64

# Machines that compilers and the tags of wheels name differently.
TAG_MACHINES = {"powerpc64le": "ppc64le", "powerpc64": "ppc64", "i386": "i686", "i486": "i686", "i586": "i686"}

FLAGS = ["-std=c++17", "-O2", "-funroll-loops", "-ffp-contract=fast"]
FLAGS += ["-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
LINKER_FLAGS = ["-shared", "-s", "-static-libgcc", "-static-libstdc++", "-Wl,--no-undefined", "-Wl,--as-needed"]
# ONNX Runtime unloads a library with the last session. What the library keeps for the next one would leak: scratch
# memory, and code in the CUDA driver.
LINKER_FLAGS += ["-Wl,-z,nodelete"]
CUDA_LINKER_FLAGS = [*LINKER_FLAGS, "-ldl", "-lpthread"]  # these were libraries of their own before glibc 2.34
CUDA_TEXTS = ["cuda_layer.h", "cuda_solver.cu"]  # compiled on the user's machine; the library contains them


class KernelNotBuiltError(Exception):
    """The library could not be built; the message says why."""


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable":  # used from the source tree
            self._build(root, root)
            return
        self._folder = tempfile.TemporaryDirectory()
        target = Path(self._folder.name)
        (target / LIBRARY).parent.mkdir(parents=True)
        machine = self._build(root, target)
        if machine:
            built = [name for name in (LIBRARY, CUDA_LIBRARY) if (target / name).exists()]
            build_data["force_include"] |= {str(target / name): name for name in built}
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{tag_machine(machine)}"

    def _build(self, root: Path, target: Path) -> str | None:
        sources = root / "pdeinfer/kernels"
        try:
            machine = build_library(sources, target / LIBRARY)
        except KernelNotBuiltError as error:
            self.app.display_warning(f"pdeinfer is built without its fused operator; PDE layers run slower: {error}")
            return None
        self.app.display_info(f"pdeinfer is built with its fused operator for {machine}")
        try:
            build_cuda_library(sources, target / CUDA_LIBRARY)
        except KernelNotBuiltError as error:
            self.app.display_warning(f"pdeinfer is built without its operator for CUDA; PDE layers run slower: {error}")
        return machine


def tag_machine(machine: str) -> str:
    """Return what the tags of wheels call a machine that a compiler names."""
    if machine.startswith("arm"):  # the triple does not name the version; pip uses the kernel's machine name
        own = os.uname().machine
        return own if own.startswith("arm") else "armv7l"
    return TAG_MACHINES.get(machine, machine)


def build_library(sources: Path, library: Path) -> str:
    """Compile the operator library for CPUs; return the machine it is for: this one, or the target of the compiler CXX.

    An existing library is replaced only by a complete new one, and removed if the build fails.

    Raises:
        KernelNotBuiltError: there is no compiler, the system is not Linux, the compiler fails, or the library cannot be
            written.
    """
    with _building(library) as (compiler, folder):
        machine = _run(*compiler, "-dumpmachine").partition("-")[0]
        objects = [folder / "operator.o"]
        _run(*compiler, *FLAGS, "-c", sources / "operator.cc", "-o", objects[0])
        for solver, level, lanes, flags in SOLVERS.get(machine, BASELINE):
            objects.append(folder / f"{level}.o")
            definitions = [f"-DSOLVER={solver}", f'-DNAME="{level}"', f"-DLANES={lanes}"]
            _run(*compiler, *FLAGS, *flags, *definitions, "-c", sources / "solver.cc", "-o", objects[-1])
        _run(*compiler, *LINKER_FLAGS, *objects, "-o", folder / library.name)
    return machine


def build_cuda_library(sources: Path, library: Path, definitions: Sequence[str] = ()) -> None:
    """Compile the operator library for CUDA, as `build_library` does that for CPUs; definitions are compiler flags."""
    with _building(library) as (compiler, folder):
        for name in CUDA_TEXTS:
            text = (sources / name).read_text(encoding="utf-8")
            (folder / f"{name}.literal").write_text(f'R"text({text})text"', encoding="utf-8")
        files = [sources / "cuda_operator.cc", sources / "cuda_code.cc"]
        _run(*compiler, *FLAGS, f"-I{folder}", *definitions, *files, *CUDA_LINKER_FLAGS, "-o", folder / library.name)


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler.

    Raises:
        KernelNotBuiltError: there is none.
    """
    compiler = shlex.split(os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), ""))
    if not compiler:
        raise KernelNotBuiltError("there is no C++ compiler (g++, c++ or clang++)")
    return compiler


@contextlib.contextmanager
def _building(library: Path) -> Iterator[tuple[list[str], Path]]:
    """Yield the compiler's command, and a folder; install the library that was built there under its name."""
    new = library.with_name(f".{library.name}.{os.getpid()}")
    try:
        if not sys.platform.startswith("linux"):
            raise KernelNotBuiltError(f"it is built on Linux only, and this is {sys.platform}")
        with tempfile.TemporaryDirectory() as folder:
            yield find_compiler(), Path(folder)
            # Renamed into place: a process that uses the old library keeps it.
            shutil.copy(Path(folder) / library.name, new)
            new.replace(library)
    except KernelNotBuiltError:
        _remove(library)
        raise
    except OSError as error:
        _remove(library)
        raise KernelNotBuiltError(f"cannot write {library}: {error}") from error
    finally:
        _remove(new)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # its folder may be read-only
        file.unlink()


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelNotBuiltError(str(error)) from error
    if done.returncode:
        first_line = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise KernelNotBuiltError(f"{command[0]} failed: {first_line}")
    return done.stdout
