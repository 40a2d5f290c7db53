"""Many worker processes on one port; one that dies is replaced."""

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from prometheus_client.multiprocess import mark_process_dead

from serving.settings import Settings
from serving.worker import CANNOT_START, serve

logger = logging.getLogger(__name__)

# A worker that dies at once is replaced once this many seconds have passed since it was started.
RESTART_SECONDS = 1.0

# A fork would copy a process without its threads, and ONNX Runtime has some.
_spawn = multiprocessing.get_context("spawn")


class _Worker:
    """A process that serves, and the pipe on which it says that it accepts requests."""

    def __init__(self, settings: Settings, bound: socket.socket) -> None:
        self.has_started = False
        self.started_at = time.monotonic()
        self.pipe, writer = _spawn.Pipe(duplex=False)
        with _sibling(bound) as listening:
            self.process = _spawn.Process(target=_work, args=(settings, listening, writer))
            self.process.start()
        writer.close()

    def update(self) -> None:
        if not self.has_started and self.pipe.poll():
            with suppress(EOFError):
                self.pipe.recv_bytes()
                self.has_started = True

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            # One that has not started has nothing to finish.
            os.kill(self.process.pid or 0, number if self.has_started else signal.SIGKILL)


def _sibling(bound: socket.socket) -> socket.socket:
    """Return another socket on the address of `bound`; the kernel spreads connections over those that listen.

    On one socket for all, the worker that wakes up first would accept a whole burst of connections.
    """
    sibling = socket.socket(bound.family, bound.type, bound.proto)
    sibling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sibling.bind(bound.getsockname())
    return sibling


def _work(settings: Settings, listening: socket.socket, pipe: Connection) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the supervisor alone, which passes it on
    raise SystemExit(serve(settings, listening, started=lambda: pipe.send_bytes(b"started")))


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

    def run(self) -> int:
        """Return 0 after a signal, CANNOT_START where the first workers cannot use a model or the device."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._stop(number))
        with tempfile.TemporaryDirectory(prefix="pdeinfer-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # inherited: there the workers add up their metrics
            return self._run()

    def _run(self) -> int:
        self._workers = [_Worker(self._settings, self._bound) for _ in range(self._settings.workers)]
        exit_code = 0
        while self._workers:
            wait([worker.process.sentinel if worker.has_started else worker.pipe for worker in self._workers])
            for worker in self._workers:
                worker.update()
            if not self._has_started and all(worker.has_started for worker in self._workers):
                self._has_started = True
                self._started()
            for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
                self._workers.remove(worker)
                mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]  # its gauges count no more
                if self._stop_signal is not None:
                    continue
                if worker.process.exitcode != CANNOT_START:  # which has said why
                    logger.error("worker %s died with exit code %s", worker.process.pid, worker.process.exitcode)
                if self._has_started:
                    self._replace(worker)
                else:
                    exit_code = CANNOT_START
                    self._stop(signal.SIGTERM)
        return exit_code

    def _stop(self, number: int) -> None:
        self._stop_signal = number
        for worker in self._workers:
            worker.signal(number)

    def _replace(self, worker: _Worker) -> None:
        time.sleep(max(0.0, worker.started_at + RESTART_SECONDS - time.monotonic()))
        if self._stop_signal is None:
            replacement = _Worker(self._settings, self._bound)
            self._workers.append(replacement)
            if self._stop_signal is not None:  # the signal came while it was started
                replacement.signal(self._stop_signal)
