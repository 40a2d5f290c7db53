"""Many worker processes on one port; one that dies, or hangs, is replaced."""

import json
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from serving.process.changes import Changes
from serving.process.link import Link
from serving.process.worker import CANNOT_START, serve
from serving.settings import Settings
from serving.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)

# A worker that dies at once is replaced once this many seconds have passed since it was started.
RESTART_SECONDS = 1.0

# A worker is asked so often whether its event loop runs, and killed where it has not answered so many times. Times are
# counted, not seconds: after a machine was paused, its workers have as long as ever.
PING_SECONDS = 5.0
MAX_UNANSWERED = 6

# A fork would copy a process without its threads, and ONNX Runtime has some.
_spawn = multiprocessing.get_context("spawn")


class _Worker:
    """A process that serves, and the pipe to its `Link`."""

    def __init__(self, settings: Settings, bound: socket.socket, names: list[str] | None) -> None:
        self.has_started = False
        self.started_at = time.monotonic()
        self._unanswered = 0  # pings since its last answer
        self._pipe, other_end = _spawn.Pipe()
        with sibling_of(bound) as listening, other_end:
            self.process = _spawn.Process(target=_work, args=(settings, listening, other_end, names))
            self.process.start()

    def waitables(self) -> list[Any]:
        """Return what `wait` takes: it ends once the worker has sent a message or died."""
        return [self.process.sentinel] if self._pipe.closed else [self.process.sentinel, self._pipe]

    def messages(self) -> Iterator[list[Any]]:
        """Yield what it has sent."""
        try:
            while not self._pipe.closed and self._pipe.poll():
                message = json.loads(self._pipe.recv_bytes())
                if message == ["pong"]:
                    self._unanswered = 0
                else:
                    yield message
        except (EOFError, OSError):  # it has died, or is about to
            self._pipe.close()

    def ping(self) -> None:
        """Ask it whether it works, once it has started; end one that never answers."""
        if not self.has_started:
            return
        if self._unanswered == MAX_UNANSWERED:
            seconds = MAX_UNANSWERED * PING_SECONDS
            logger.error("worker %s has not answered for %g seconds, and is killed", self.process.pid, seconds)
            self.process.kill()
            return
        if not self._unanswered:
            self.send("ping")
        self._unanswered += 1

    def send(self, *message: object) -> None:
        with suppress(OSError):
            self._pipe.send_bytes(json.dumps(message).encode())

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            # One that has not started has nothing to finish.
            os.kill(self.process.pid or 0, number if self.has_started else signal.SIGKILL)


def sibling_of(bound: socket.socket) -> socket.socket:
    """Return another socket on the address of `bound`; the kernel spreads connections over those that listen.

    On one socket for all, the worker that wakes up first would accept a whole burst of connections.
    """
    sibling = socket.socket(bound.family, bound.type, bound.proto)
    sibling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else its closed connections hold up a restart
    sibling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sibling.bind(bound.getsockname())
    return sibling


def _work(settings: Settings, listening: socket.socket, pipe: Connection, names: list[str] | None) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the supervisor alone, which passes it on
    configure_logging()
    link = Link(pipe, names)
    raise SystemExit(serve(settings, listening, link.started, link))


class Supervisor:
    """Run `settings.workers` workers until SIGTERM or SIGINT, which are passed on to them.

    Args:
        bound: reserves the address; a worker listens on a socket of its own once its models are loaded and warm.
        started: called once all of the first workers accept.
    """

    def __init__(self, settings: Settings, bound: socket.socket, started: Callable[[], None]) -> None:
        self._settings = settings
        self._bound = bound
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._started = started
        self._has_started = False
        self._stop_signal: int | None = None
        self._workers: list[_Worker] = []
        self._changes = Changes()
        self._next_ping = time.monotonic() + PING_SECONDS

    def run(self) -> int:
        """Return 0 after a signal; else, of the first worker that ended too early, CANNOT_START or 1."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._stop(number))
        with tempfile.TemporaryDirectory(prefix="pdeinfer-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # inherited: there the workers add up their metrics
            return self._run()

    def _run(self) -> int:
        for _ in range(self._settings.workers):
            self._start_worker()
        exit_code = 0
        while self._workers:
            waitables = [waitable for worker in self._workers for waitable in worker.waitables()]
            wait(waitables, max(0.0, self._next_ping - time.monotonic()))
            for worker in self._workers:
                for message in worker.messages():
                    if message[0] == "started":
                        worker.has_started = True
                    self._changes.receive(worker, message)
            self._ping_when_due()
            if not self._has_started and all(worker.has_started for worker in self._workers):
                self._has_started = True
                self._started()
            for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
                self._workers.remove(worker)
                self._changes.leave(worker)
                mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]  # its gauges count no more
                if self._stop_signal is not None:
                    continue
                if worker.process.exitcode != CANNOT_START:  # which has said why
                    logger.error("worker %s died with exit code %s", worker.process.pid, worker.process.exitcode)
                if self._has_started:
                    self._replace(worker)
                else:
                    exit_code = CANNOT_START if worker.process.exitcode == CANNOT_START else 1
                    self._stop(signal.SIGTERM)
        return exit_code

    def _ping_when_due(self) -> None:
        if time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + PING_SECONDS
            for worker in self._workers:
                worker.ping()

    def _stop(self, number: int) -> None:
        self._stop_signal = number
        for worker in self._workers:
            worker.signal(number)

    def _replace(self, worker: _Worker) -> None:
        time.sleep(max(0.0, worker.started_at + RESTART_SECONDS - time.monotonic()))
        if self._stop_signal is None:
            self._start_worker()

    def _start_worker(self) -> None:
        worker = _Worker(self._settings, self._bound, self._changes.names)
        self._workers.append(worker)
        self._changes.join(worker)
        if self._stop_signal is not None:  # the signal came while it was started
            worker.signal(self._stop_signal)
