"""The build hook: compiles pdeinfer/kernels where there is a C++ compiler, else the wheel is pure Python."""

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
HEADER = "onnxruntime_c_api.h"
# Debian's package of the headers: its first release is not in every Debian that this builds on.
DEBIAN_SOURCE = "deb [signed-by={keyring}] {mirror} trixie main"
DEBIAN_PACKAGE = "libonnxruntime-dev"

# Of each solver: its name in the library, its name for people, its lanes, the compiler's flags. Tuning for Ice Lake and
# unrolling were the fastest tried on Zen 5: by 6 % at K = 5 with AVX-512, by 16 % with AVX2, against plain -O3.
TUNED = "-mtune=icelake-server"
SOLVERS = {
    "x86_64": [
        ("kBaseline", "baseline", 4, [TUNED]),
        ("kAvx2", "avx2", 8, [TUNED, "-mavx2", "-mfma"]),
        ("kAvx512", "avx512", 16, [TUNED, "-mavx512f"]),
    ],
    "aarch64": [("kBaseline", "baseline", 4, [])],
}
FLAGS = ["-std=c++17", "-O2", "-funroll-loops", "-ffp-contract=fast"]
FLAGS += ["-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
LINKER_FLAGS = ["-shared", "-s", "-static-libgcc", "-static-libstdc++", "-Wl,--no-undefined"]


class KernelNotBuiltError(Exception):
    """Why there is no library."""


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable":  # which is used from the source tree
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
            self.app.display_warning(f"pdeinfer is built without its fused kernel, and works, but slower: {error}")
            return None
        self.app.display_info(f"pdeinfer is built with its fused kernel, for {machine}")
        return machine


def build_library(sources: Path, library: Path) -> str:
    """Compile the operator library for this machine, or for the one that CXX compiles for; return that machine.

    Raises:
        KernelNotBuiltError: there is no compiler, there are no headers, or it does not compile. No library is left.
    """
    library.unlink(missing_ok=True)
    compiler = shlex.split(os.environ.get("CXX") or next(filter(shutil.which, ("g++", "c++", "clang++")), ""))
    if not compiler:
        raise KernelNotBuiltError("there is no C++ compiler (g++)")
    machine = _run(*compiler, "-dumpmachine").partition("-")[0]
    if machine not in SOLVERS or not sys.platform.startswith("linux"):
        raise KernelNotBuiltError(f"there is no kernel for {sys.platform} on {machine}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = [folder / "operator.o"]
        _run(*compiler, *FLAGS, f"-I{find_headers(folder)}", "-c", sources / "operator.cc", "-o", objects[0])
        for solver, level, lanes, flags in SOLVERS[machine]:
            objects.append(folder / f"{level}.o")
            definitions = [f"-DSOLVER={solver}", f'-DNAME="{level}"', f"-DLANES={lanes}"]
            _run(*compiler, *FLAGS, *flags, *definitions, "-c", sources / "solver.cc", "-o", objects[-1])
        linked = folder / "library.so"
        _run(*compiler, *LINKER_FLAGS, *objects, "-o", linked)
        shutil.move(linked, library)
    return machine


def find_headers(folder: Path) -> Path:
    """Return the folder of ONNX Runtime's C headers: the named one, the system's, or one that is fetched into `folder`.

    Raises:
        KernelNotBuiltError: there are none.
    """
    named = os.environ.get("ONNXRUNTIME_INCLUDE_DIR")
    places = [Path(named)] if named else [Path(prefix, "include/onnxruntime") for prefix in ("/usr/local", "/usr")]
    for place in places:
        if (place / HEADER).exists():
            return place
    if named:
        raise KernelNotBuiltError(f"there is no {HEADER} in ONNXRUNTIME_INCLUDE_DIR, {named}")
    try:
        return _fetch_headers(folder)
    except KernelNotBuiltError as error:
        raise KernelNotBuiltError(
            f"there are no headers of ONNX Runtime: install {DEBIAN_PACKAGE}, or set ONNXRUNTIME_INCLUDE_DIR ({error})"
        ) from error


def _fetch_headers(folder: Path) -> Path:
    """Download Debian's package with a package index of its own, as any user, and unpack it."""
    keyrings = [Path("/usr/share/keyrings/debian-archive-keyring").with_suffix(kind) for kind in (".pgp", ".gpg")]
    keyring = next((path for path in keyrings if path.exists()), None)
    if keyring is None or not shutil.which("apt-get"):
        raise KernelNotBuiltError("they can be fetched on Debian only")
    for name in ("state/lists/partial", "cache/archives/partial", "headers"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(DEBIAN_SOURCE.format(keyring=keyring, mirror=_debian_mirror()) + "\n")
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": 2,
    }
    apt_get = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run(*apt_get, "update", folder=folder)
    _run(*apt_get, "download", DEBIAN_PACKAGE, folder=folder)
    _run("dpkg", "-x", next(folder.glob("*.deb")), "headers", folder=folder)
    return folder / "headers/usr/include/onnxruntime"


def _debian_mirror() -> str:
    """Return the address from which this machine has its packages of Debian's main component."""
    targets = _run("apt-get", "indextargets", "--format", "$(COMPONENT) $(RELEASE) $(SITE)", "Created-By: Packages")
    for component, release, site in map(str.split, targets.splitlines()):
        if component == "main" and "-" not in release:  # bookworm-security and its like are kept elsewhere
            return site
    raise KernelNotBuiltError("apt-get has no source of Debian's packages")


def _run(*command: str | Path, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelNotBuiltError(str(error)) from error
    if done.returncode:
        first_line = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise KernelNotBuiltError(f"{command[0]} failed: {first_line}")
    return done.stdout
