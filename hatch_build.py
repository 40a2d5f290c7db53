"""The build hook: compiles pdeinfer/kernels if there is a C++ compiler; otherwise the wheel is pure Python."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "pdeinfer/kernels/libpdeinfer.so"

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
FLAGS = ["-std=c++17", "-O2", "-funroll-loops", "-ffp-contract=fast"]
FLAGS += ["-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
LINKER_FLAGS = ["-shared", "-s", "-static-libgcc", "-static-libstdc++", "-Wl,--no-undefined"]


class KernelNotBuiltError(Exception):
    """The library could not be built; the message says why."""


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable":  # used from the source tree
            self._build(root, root / LIBRARY)
            return
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name) / "library.so"
        machine = self._build(root, library)
        if machine:
            build_data["force_include"][str(library)] = LIBRARY
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{machine}"

    def _build(self, root: Path, library: Path) -> str | None:
        try:
            machine = build_library(root / "pdeinfer/kernels", library)
        except KernelNotBuiltError as error:
            self.app.display_warning(f"pdeinfer is built without its fused operator; PDE layers run slower: {error}")
            return None
        self.app.display_info(f"pdeinfer is built with its fused operator for {machine}")
        return machine


def build_library(sources: Path, library: Path) -> str:
    """Compile the operator library and return the machine it is for: this one, or the target of the compiler CXX.

    An existing library is replaced only by a complete new one, and removed if the build fails.

    Raises:
        KernelNotBuiltError: there is no compiler, the system is not Linux, or the compiler fails.
    """
    try:
        return _compile(sources, library)
    except KernelNotBuiltError:
        library.unlink(missing_ok=True)
        raise


def _compile(sources: Path, library: Path) -> str:
    if not sys.platform.startswith("linux"):
        raise KernelNotBuiltError(f"it is built on Linux only, and this is {sys.platform}")
    compiler = shlex.split(os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), ""))
    if not compiler:
        raise KernelNotBuiltError("there is no C++ compiler (g++, c++ or clang++)")
    machine = _run(*compiler, "-dumpmachine").partition("-")[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = [folder / "operator.o"]
        _run(*compiler, *FLAGS, "-c", sources / "operator.cc", "-o", objects[0])
        for solver, level, lanes, flags in SOLVERS.get(machine, BASELINE):
            objects.append(folder / f"{level}.o")
            definitions = [f"-DSOLVER={solver}", f'-DNAME="{level}"', f"-DLANES={lanes}"]
            _run(*compiler, *FLAGS, *flags, *definitions, "-c", sources / "solver.cc", "-o", objects[-1])
        linked = folder / "library.so"
        _run(*compiler, *LINKER_FLAGS, *objects, "-o", linked)
        # Renamed into place: a process that uses the old library keeps it.
        new = library.with_name(f".{library.name}.{os.getpid()}")
        shutil.copy(linked, new)
        new.replace(library)
    return machine


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelNotBuiltError(str(error)) from error
    if done.returncode:
        first_line = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise KernelNotBuiltError(f"{command[0]} failed: {first_line}")
    return done.stdout
