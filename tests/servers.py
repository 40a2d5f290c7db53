"""Run servers in separate processes and wait for lines of their logs."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]


def wait_for_log(process: subprocess.Popen[bytes], log: Path, pattern: str) -> re.Match[str]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text()):
            return found
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{pattern!r} is not in the log:\n{log.read_text()}")


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        return wait_for_log(self.process, self.log, pattern)


@contextmanager
def running_server(log: Path, *arguments: str, program: tuple[str, ...] = ("-m", "pdeinfer")) -> Iterator[Server]:
    """Start a server, of one worker unless the arguments say otherwise, and stop it at the end."""
    workers = () if "--workers" in arguments else ("--workers", "1")
    command = [sys.executable, *program, "serve", "--port", "0", "--device", "cpu", *workers, *arguments]
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file) as process:
        try:
            port = wait_for_log(process, log, r"running on http://127\.0\.0\.1:(\d+)")[1]
            yield Server(process, log, int(port))
        finally:
            process.kill()


# Python imports a module of this name when it starts.
_SITECUSTOMIZE = """
import os, time

real_open = os.open

def open_when_it_may(path, *arguments, **options):
    while str(path).endswith(".onnx") and os.path.exists(f"{path}.hangs"):
        time.sleep(0.05)
    return real_open(path, *arguments, **options)

os.open = open_when_it_may
"""


def let_models_hang(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let Python processes that are started from now on wait before they open `X.onnx` while `X.onnx.hangs` exists.

    Such is the disk of a network that has gone.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))


def children(process: int) -> list[int]:
    """Return the process ids of a server's workers."""
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(OSError):  # it has just exited
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    return found


def is_alive(process: int) -> bool:
    """Return whether a process runs: one that has ended may wait for its parent, or for init, to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def owners(server: Server) -> dict[int, int]:
    """Return the worker that has accepted each connection, by the client's port."""
    found = {}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    for worker in children(server.process.pid):
        sockets = set()
        for descriptor in Path(f"/proc/{worker}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                sockets.add(str(descriptor.readlink()))
        for line in lines:
            # Those that the client has closed count until the worker has closed them too.
            if line[1].endswith(f":{server.port:04X}") and line[3] != "0A" and f"socket:[{line[9]}]" in sockets:
                found[int(line[2].split(":")[1], 16)] = worker
    return found
