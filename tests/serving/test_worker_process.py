"""A worker process, as its supervisor starts and stops it."""

import asyncio
import errno
import os
import signal
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from serving.process import worker_process
from serving.process.accepting import shares
from serving.process.worker_process import WorkerProcess
from serving.settings import Settings


def test_a_process_that_cannot_be_started_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def opened() -> tuple[socket.socket, socket.socket]:
        ends.extend(make_pair())
        return ends[-2], ends[-1]

    async def run() -> None:  # the event loop has a pair of its own
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", opened)
            await WorkerProcess.start(Settings(), bound, None, shares(1)[0], 0, {})

    ends: list[socket.socket] = []
    make_pair = socket.socketpair
    spawn = SimpleNamespace(Process=lambda **_: SimpleNamespace(start=start))
    monkeypatch.setattr(worker_process, "_spawn", spawn)
    with socket.socket() as bound, pytest.raises(BlockingIOError):
        asyncio.run(run())

    assert [end.fileno() for end in ends] == [-1, -1]


@pytest.mark.parametrize(
    ("has_started", "pid", "is_alive", "sent"),
    [
        (False, 7, True, ["kill"]),
        (True, 7, True, [(7, signal.SIGTERM)]),
        (True, 7, False, []),  # its number may be another process's by now
        (True, None, False, []),
    ],
)
def test_a_stop_signal_reaches_the_worker_alone(
    has_started: bool, pid: int | None, is_alive: bool, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        worker = WorkerProcess(process, 0)  # type: ignore[arg-type]
        worker.has_started = has_started
        worker.stop(signal.SIGTERM)

    signals: list[Any] = []
    process = SimpleNamespace(pid=pid, is_alive=lambda: is_alive, kill=lambda: signals.append("kill"))
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))

    asyncio.run(run())

    assert signals == sent
