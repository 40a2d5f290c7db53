"""Runs several workers on one port: starts, watches and replaces them."""

import asyncio
import logging
import math
import signal
import socket
import sys
import time
from contextlib import suppress

from serving.process.accepting import Share, shares
from serving.process.agreement import ModelAgreement
from serving.process.channel import Functions
from serving.process.latest import Latest
from serving.process.lifecycle import CANNOT_START, Started, seconds_to_drain, seconds_to_stop, stop_signals
from serving.process.listening import stop_connecting
from serving.process.orphans import reap_orphans
from serving.process.worker_process import WorkerProcess
from serving.settings import Settings
from serving.telemetry.metrics import Snapshot, counted, merge

logger = logging.getLogger(__name__)

# A worker that dies at once is replaced this long after it was started, and one that cannot start twice as long each
# time, until the models change.
RESTART_SECONDS = 1.0
MAX_RESTART_SECONDS = 30.0

# A worker is pinged this often, and killed once it has left this many intervals unanswered. Intervals are counted
# rather than seconds: the time for which a machine is suspended does not count.
PING_SECONDS = 5.0
MAX_UNANSWERED = 6

# What stops a worker may stop the server: systemd signals each process of a service, in any order.
SIGNAL_SECONDS = 0.2

KILL_SECONDS = 0.9  # a worker ends itself this long after its last request should have been answered, or is killed


class Supervisor:
    """Run `settings.num_workers` workers until a signal stops them.

    Args:
        listening: a bound socket, on which the workers listen once their models are loaded.
        started: called once all of the first workers accept requests.
    """

    def __init__(self, settings: Settings, listening: socket.socket, started: Started) -> None:
        self._settings = settings
        self._listening = listening
        self._started = started
        self._has_started = self._has_failed = False
        self._stop_signal: int | None = None
        self._workers: list[WorkerProcess] = []
        self._agreement = ModelAgreement(self._workers)
        self._retry = asyncio.Event()  # set for a moment when workers that could not start should be started again
        self._ended: Snapshot = []  # what workers that have ended had counted
        self._metrics = Latest(self._collect)

    def run(self) -> int:
        """Return 0 after a signal; CANNOT_START or 1 if one of the first workers ended before all had started."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop, number)
        collecting = asyncio.create_task(self._collect_regularly())
        reaping = asyncio.create_task(_reap_regularly())
        exit_codes = await asyncio.gather(*(self._keep_worker(share) for share in shares(self._settings.num_workers)))
        collecting.cancel()
        reaping.cancel()
        return max(exit_codes)

    async def _keep_worker(self, share: Share) -> int:
        """Start a worker, and again whenever it has ended, until the server stops."""
        functions: Functions = {
            "join": self._agreement.join,
            "started": self._note_start,
            "failed": self._tell_failure,
            "change": self._change,
            "metrics": self._read_metrics,
        }
        restart_seconds = RESTART_SECONDS
        while self._stop_signal is None:
            expected = self._agreement.expected()
            try:
                worker = await WorkerProcess.start(
                    self._settings, self._listening, expected, share, self._agreement.changes, functions
                )
            except OSError as error:  # the system has no process, memory or file left; the other workers serve
                if not self._has_started:
                    raise
                logger.error("a worker cannot be started: %s", error)
                restart_seconds = min(2 * restart_seconds, MAX_RESTART_SECONDS)
                await self._wait_to_restart(restart_seconds)
                continue
            self._workers.append(worker)
            if self._stop_signal is not None:  # it came meanwhile
                worker.stop(self._stop_signal)
            watching = asyncio.create_task(self._watch(worker))
            exit_code = await worker.ended
            share.leave()
            watching.cancel()
            self._workers.remove(worker)
            self._ended = merge((self._ended, counted(worker.snapshot)))
            if self._stop_signal is None and exit_code in (0, *(-number for number in stop_signals())):
                await asyncio.sleep(SIGNAL_SECONDS)
            if self._stop_signal is not None or worker.is_outdated:
                continue
            if exit_code != CANNOT_START:  # with that code, it has told the reason
                logger.error("worker %s died with exit code %s", worker.process.pid, exit_code)
            if not self._has_started:
                self._stop(signal.SIGTERM)
                return CANNOT_START if exit_code == CANNOT_START else 1
            restart_seconds = RESTART_SECONDS if worker.has_started else min(2 * restart_seconds, MAX_RESTART_SECONDS)
            await self._wait_to_restart(worker.started_at + restart_seconds - time.monotonic())
        return 0

    async def _wait_to_restart(self, seconds: float) -> None:
        """Wait, but not after the models have changed or the server has been told to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._retry.wait()

    async def _note_start(self, worker: WorkerProcess) -> None:
        worker.has_started = True
        started = sum(worker.has_started for worker in self._workers)
        if not self._has_started and started == self._settings.num_workers:
            self._has_started = True
            await self._started()

    async def _tell_failure(self, worker: WorkerProcess, message: str) -> None:
        """Tell why a worker cannot start; of the first workers, which all have the same reason, only for one."""
        if self._has_started:
            logger.error("worker %s cannot start: %s", worker.process.pid, message)
        elif not self._has_failed:
            print(f"pdeinfer serve: {message}", file=sys.stderr, flush=True)
        self._has_failed = True

    async def _change(self, asked: WorkerProcess, name: str, action: str) -> list[str]:
        versions = await self._agreement.change(asked, name, action)
        self._wake_restarts()
        return versions

    def _wake_restarts(self) -> None:
        self._retry.set()
        self._retry.clear()

    async def _read_metrics(self, _: WorkerProcess) -> Snapshot:
        return await self._metrics.get()

    async def _collect(self) -> Snapshot:
        """Return what all workers have counted, those that have ended included."""
        await asyncio.gather(*(worker.update_snapshot() for worker in self._workers))
        return merge((self._ended, *(worker.snapshot for worker in self._workers)))

    async def _collect_regularly(self) -> None:
        """Keep the snapshots young: what a worker had counted after its last one is lost when it dies."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self._metrics.get()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill a worker whose event loop stands still."""
        while True:
            ping = worker.tell("ping")
            intervals = MAX_UNANSWERED
            if not worker.has_started:  # loading may occupy the event loop too
                intervals += math.ceil(self._settings.load_timeout / PING_SECONDS)
            for _ in range(intervals):
                await asyncio.sleep(PING_SECONDS)
                if ping.done():
                    break
            else:
                seconds = intervals * PING_SECONDS
                logger.error("worker %s has not answered for %g seconds and is killed", worker.process.pid, seconds)
                worker.kill()
                return

    def _stop(self, number: int) -> None:
        self._stop_signal = number
        self._wake_restarts()
        for worker in self._workers:
            worker.stop(number)
        loop = asyncio.get_running_loop()
        loop.call_later(seconds_to_drain(number, self._settings), self._stop_listening)
        loop.call_later(seconds_to_stop(number, self._settings) + KILL_SECONDS, self._kill)

    def _stop_listening(self) -> None:
        """Refuse new connections once the workers have accepted those that wait and have closed the socket too."""
        if self._listening.fileno() >= 0:  # otherwise there was a signal before
            stop_connecting(self._listening)
            self._listening.close()

    def _kill(self) -> None:
        """Kill the workers that have not ended in time, as those do that cannot run Python."""
        for worker in self._workers:
            logger.error("worker %s has not ended within --shutdown-timeout and is killed", worker.process.pid)
            worker.kill()


async def _reap_regularly() -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        reap_orphans()
