"""A worker process, as its supervisor sees it."""

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pdeinfer.processes import safe_path
from serving.errors import ServingError
from serving.process.channel import Channel, Functions, PeerLostError
from serving.process.ending import end_with_parent
from serving.process.lifecycle import stop_signals_blocked
from serving.process.turns import Share
from serving.settings import Settings
from serving.telemetry.logs import configure_logging
from serving.telemetry.metrics import Snapshot

if TYPE_CHECKING:  # the supervisor starts sooner without what serves
    from serving.engine.models import Expected

SNAPSHOT_SECONDS = 1.0  # a worker that takes longer to tell what it has counted is represented by what it told before

# A forked process would lack the threads that ONNX Runtime has started.
_spawn = multiprocessing.get_context("spawn")


class WorkerProcess:
    """A worker process and the channel to it.

    Attributes:
        ended: gets the exit code.
        has_joined: whether it takes part in changes of models.
        has_started: whether it accepts requests.
        changes: how many changes of models had been made when it was started.
        is_outdated: whether it was ended because the models changed while it loaded them.
        snapshot: what it had counted when it was last asked.
    """

    def __init__(
        self,
        settings: Settings,
        listening: socket.socket,
        end: socket.socket,
        expected: "Expected | None",
        share: Share,
        changes: int,
    ) -> None:
        self.changes = changes
        self.has_joined = self.has_started = self.is_outdated = False
        self.snapshot: Snapshot = []
        self.channel: Channel
        self.started_at = time.monotonic()
        self.process = _spawn.Process(target=_work, args=(settings, listening, end, expected, share))
        with stop_signals_blocked(), safe_path():
            self.process.start()
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int | None] = loop.create_future()
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def start(
        cls,
        settings: Settings,
        listening: socket.socket,
        expected: "Expected | None",
        share: Share,
        changes: int,
        functions: Functions,
    ) -> Self:
        """Start a worker.

        Args:
            listening: shared by all workers.
            functions: what it may call, each with the worker as the first argument.
        """
        end, other_end = socket.socketpair()
        with other_end:
            worker = cls(settings, listening, other_end, expected, share, changes)
        own_functions: Functions = {name: partial(function, worker) for name, function in functions.items()}
        worker.channel = await Channel.open(end, own_functions, lost=lambda: None)  # `_end` follows
        asyncio.get_running_loop().add_reader(worker.process.sentinel, worker._end)
        return worker

    async def update_snapshot(self) -> None:
        """Ask what the worker has counted, and keep what it told before if it does not answer in time."""
        with suppress(PeerLostError, ServingError, TimeoutError):
            async with asyncio.timeout(SNAPSHOT_SECONDS):
                self.snapshot = await self.channel.call("snapshot")

    def tell(self, function: str) -> asyncio.Task[None]:
        """Call a function of the worker in a task, which also ends when the worker does."""

        async def call() -> None:
            with suppress(PeerLostError):
                await self.channel.call(function)

        task = asyncio.create_task(call())
        self._tasks.add(task)  # keeps it from being collected
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self, number: int) -> None:
        """Send a stop signal to the worker."""
        with suppress(ProcessLookupError):
            # A worker that has not started has no requests to finish.
            os.kill(self.process.pid or 0, number if self.has_started else signal.SIGKILL)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.process.sentinel)
        self.process.join()
        self.channel.close()
        self.ended.set_result(self.process.exitcode)


def _work(
    settings: Settings, listening: socket.socket, end: socket.socket, expected: "Expected | None", share: Share
) -> None:
    end_with_parent()
    os.setsid()  # a terminal's Ctrl-C reaches only the supervisor, which passes it on
    from serving.process.membership import Membership
    from serving.process.worker import serve

    configure_logging()
    membership = Membership(end, expected, share)
    raise SystemExit(serve(settings, listening, membership.report_start, membership))
