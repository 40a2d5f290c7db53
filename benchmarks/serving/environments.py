"""Makes an environment per peer, with the versions that its requirements file pins."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENTS = ROOT / "build/peers"


class PeerNotInstalledError(Exception):
    """A peer cannot be installed here; the message says why."""


def requirements(name: str) -> Path:
    """Return the requirements file of a peer."""
    return Path(__file__).parent / f"requirements-{name}.txt"


def python_of(name: str) -> Path:
    """Return the Python of a peer's environment, made or renewed where its requirements have changed.

    pdeinfer is not installed there: the peers import it from this checkout.

    Raises:
        PeerNotInstalledError: pip fails.
    """
    folder = ENVIRONMENTS / name
    python, installed = folder / "bin/python", folder / "installed.txt"
    wanted = requirements(name).read_text()
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"benchmark: installing {name} into {folder}", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", folder],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements(name)],
    ):
        run = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603  # our own
        if run.returncode != 0:
            raise PeerNotInstalledError(f"{name} cannot be installed: {run.stdout.strip().splitlines()[-1:]}")
    installed.write_text(wanted)
    return python
