"""The Makefile's help and its check of the Python version."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of the make that may run these tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_make_alone_lists_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    done = make(ROOT)

    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")] == targets.split()


@pytest.mark.parametrize(
    ("version", "expected"), [((3, 10, 9), "Python 3.11"), ((3, 14, 0), "TensorFlow"), ((3, 15, 0), "TensorFlow")]
)
def test_a_python_that_is_too_old_or_too_new_makes_no_environment(
    version: tuple[int, ...], expected: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements/constraints.txt", "pdeinfer/version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    program = f"import sys; assert sys.argv[1] == '-c'; sys.version_info = {version}; exec(sys.argv[2])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    python.chmod(0o755)

    done = make(tmp_path, "venv", f"PYTHON={python}")

    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()
