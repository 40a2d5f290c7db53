"""The Makefile's environment: made once, made again where it must be, never taken for whole when it is not."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging.dockerfile import ROOT

STAMP = ".venv/.installed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the Makefile's environment depends on."""
    for name in ("Makefile", "pyproject.toml", "requirements/constraints.txt", "pdeinfer/version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def write_python(path: Path, *, is_new_enough: bool = True, installs: bool = True) -> None:
    """Write a stand-in for Python: `-m venv DIR` makes a folder with a stand-in for pip, which logs its arguments."""
    path.write_text(
        f"""#!/bin/sh
case "$1$2" in
    -c*) exit {int(not is_new_enough)} ;;
    -mvenv)
        mkdir -p "$3/bin"
        printf '#!/bin/sh\\necho "$@" >> pip.log\\nexit {int(not installs)}\\n' > "$3/bin/python"
        chmod +x "$3/bin/python" ;;
esac
"""
    )
    path.chmod(0o755)


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of the make that these tests run under.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def installations(project: Path) -> list[str]:
    log = project / "pip.log"
    return log.read_text().splitlines() if log.exists() else []


def test_make_alone_lists_every_target() -> None:
    done = make(ROOT)

    assert done.returncode == 0
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")]
    assert listed == (
        "help demo test check serve bench bench-all bench-serving fuzz reliability venv".split()  # noqa: SIM905
    )


def test_an_environment_is_made_once_with_the_pinned_versions(project: Path) -> None:
    write_python(project / "python")

    for _ in range(2):
        assert make(project, "venv", "PYTHON=./python").returncode == 0

    (command,) = installations(project)
    assert "--constraint requirements/constraints.txt" in command
    assert "--editable .[cpu,serve,train,dev]" in command


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements/constraints.txt", "pdeinfer/version.py"])
def test_an_environment_is_renewed_when_what_it_is_made_from_changes(project: Path, name: str) -> None:
    write_python(project / "python")
    make(project, "venv", "PYTHON=./python")
    later = time.time() + 10
    os.utime(project / name, (later, later))

    make(project, "venv", "PYTHON=./python")

    assert len(installations(project)) == 2


def test_a_failed_installation_is_done_again(project: Path) -> None:
    write_python(project / "python", installs=False)
    assert make(project, "venv", "PYTHON=./python").returncode != 0
    assert not (project / STAMP).exists()

    write_python(project / "python")
    assert make(project, "venv", "PYTHON=./python").returncode == 0
    assert len(installations(project)) == 2


def test_a_failed_renewal_leaves_no_stamp_of_the_earlier_installation(project: Path) -> None:
    write_python(project / "python")
    make(project, "venv", "PYTHON=./python")
    os.utime(project / STAMP, (0, 0))
    write_python(project / "python", installs=False)

    assert make(project, "venv", "PYTHON=./python").returncode != 0

    assert not (project / STAMP).exists()


def test_a_python_that_is_too_old_is_one_line_and_nothing_is_made(project: Path) -> None:
    write_python(project / "python", is_new_enough=False)

    done = make(project, "test", "PYTHON=./python")

    assert done.returncode == 2
    line, makes_own = done.stderr.splitlines()
    assert line == "pdeinfer needs Python 3.11 or newer, and ./python is not: make PYTHON=/path/to/python3.11"
    assert makes_own.startswith("make: ***")
    assert done.stdout == ""
    assert not (project / ".venv").exists()
