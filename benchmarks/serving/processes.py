"""Starts servers as processes, waits for them, measures their memory and stops them."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.serving.environments import ROOT
from benchmarks.serving.servers import FOLDER, MAX_BATCH_SIZE, Peer
from pdeinfer.runtime.cpus import available_cpus

START_SECONDS, STOP_SECONDS = 120, 30


class Running:
    """A running server. An environment variable marks its processes, whoever their parent is."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], seconds_to_ready: float) -> None:
        self.port = port
        self.process = process
        self.seconds_to_ready = seconds_to_ready

    def peak_megabytes(self) -> float:
        """Return the sum of the peaks of the resident memory (VmHWM) of its processes, in MiB."""
        statuses = [_text(folder / "status") for folder in _processes(self.port)]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in statuses if "VmHWM:" in text) / 1024


@contextmanager
def running(peer: Peer, python: Path, model: str) -> Iterator[Running]:
    """Start a peer, wait until it answers, and stop it with all of its processes.

    Args:
        python: of the environment that it is installed in.
        model: a bundled model's name.

    Raises:
        RuntimeError: it ended or was not ready in time; with the end of what it wrote.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="peer-") as folder, (Path(folder) / "log").open("w+b") as log:
        _write_mlserver_settings(Path(folder), model, port)
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  # our own and the peers'
            [python, *(part.format(model=model, port=port, folder=folder) for part in peer.command)],
            cwd=folder,
            env={**os.environ, **_environment(model, port), **peer.environment, "PYTHONPATH": f"{FOLDER}:{ROOT}"},
            stdout=log,
            stderr=log,
        )
        try:
            while not _is_ready(port, peer.is_ready.format(model=model)):
                if process.poll() is not None or time.monotonic() > started + START_SECONDS:
                    log.seek(0)
                    raise RuntimeError(f"{peer.name} does not start:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.01)
            yield Running(port, process, time.monotonic() - started)
        finally:
            _stop(process, port)


def _environment(model: str, port: int) -> dict[str, str]:
    values = {"MODEL": model, "PORT": port, "CPUS": available_cpus(), "MAX_BATCH_SIZE": MAX_BATCH_SIZE}
    return {f"BENCHMARK_{name}": f"{value}" for name, value in values.items()}


def _write_mlserver_settings(folder: Path, model: str, port: int) -> None:
    free = [_free_port(), _free_port()]
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free[0],
        "metrics_port": free[1],
        "parallel_workers": 0,
        "gzip_enabled": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    batching = {"max_batch_size": MAX_BATCH_SIZE, "max_batch_time": 0.001}
    (folder / "model-settings.json").write_text(
        json.dumps({"name": model, "implementation": "mlserver_model.Model", **batching})
    )


def _is_ready(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).split()[1:2] == [b"200"]
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes], port: int) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for folder in _processes(port):  # what it has left behind
        with suppress(ProcessLookupError):
            os.kill(int(folder.name), signal.SIGKILL)


def _processes(port: int) -> list[Path]:
    marker = f"\0BENCHMARK_PORT={port}\0"
    return [
        folder
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and folder.name != f"{os.getpid()}" and marker in f"\0{_text(folder / 'environ')}"
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # the process has ended
        return ""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
