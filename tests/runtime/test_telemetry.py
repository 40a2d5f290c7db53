"""ONNX Runtime's telemetry is off: nothing is written to the user's folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, running_server
from tests.waiting import PATIENCE

COMMANDS = ("predict examples/seven.png", "inspect examples/seven.png --output OUTPUT", "evaluate digits-pde")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the user's home, and the folder of each XDG variable, for processes started now."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_an_empty_home_empty(command: str, home: Path, tmp_path: Path) -> None:
    arguments = command.replace("OUTPUT", str(tmp_path / "pictures")).split()
    subprocess.run([sys.executable, "-m", "pdeinfer", *arguments], cwd=ROOT, check=True, capture_output=True)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_leaves_an_empty_home_empty(workers: str, home: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "log", "digits-pde", "--workers", workers) as server:
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    assert list(home.iterdir()) == []


def test_a_load_of_every_file_leaves_an_empty_home_empty(home: Path) -> None:
    program = """
from pdeinfer.checks.variants import open_model
from pdeinfer.package import zoo
for name in zoo.names():
    package = zoo.load(name)
    for precision in package.precisions:
        open_model(package.path, precision)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert list(home.iterdir()) == []
