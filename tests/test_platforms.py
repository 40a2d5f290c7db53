"""Prediction works on systems without Unix-only modules and functions, and reads files as UTF-8 in every locale."""

import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

# Windows lacks these modules and functions, and has no library of the running program.
WITHOUT_UNIX = """
import ctypes, os, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "sched_getaffinity", "getuid", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
load = ctypes.CDLL
def CDLL(name, *args, **kwargs):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return load(name, *args, **kwargs)
ctypes.CDLL = CDLL
"""


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    PIL.Image.new("L", (8, 8), 100).save(path)
    return str(path)


@pytest.mark.parametrize(
    "command", [["list"], ["predict", "IMAGE"], ["inspect", "IMAGE"], ["predict", "IMAGE", "--json"]]
)
def test_commands_run_without_unix_only_functions(command: list[str], image: str, tmp_path: Path) -> None:
    arguments = [image if argument == "IMAGE" else argument for argument in command]
    program = WITHOUT_UNIX + f"from pdeinfer.cli.main import main; sys.exit(main({arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_importing_it_does_not_import_tk() -> None:
    program = "import sys, pdeinfer; sys.exit('_tkinter' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("command", [["list"], ["predict", "IMAGE"], ["inspect", "IMAGE"]])
def test_no_file_is_read_in_the_locales_encoding(command: list[str], image: str, tmp_path: Path) -> None:
    python = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-m", "pdeinfer"]
    done = subprocess.run(
        [*python, *(image if argument == "IMAGE" else argument for argument in command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
