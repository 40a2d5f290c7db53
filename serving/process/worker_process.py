"""A worker process, as its supervisor sees it."""

import asyncio
import multiprocessing
import os
import socket
import time
from contextlib import suppress
from functools import partial
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Self

from pdeinfer.processes import safe_path
from serving.errors import ServingError
from serving.process.accepting import Share
from serving.process.channel import Channel, Functions, PeerLostError
from serving.process.ending import end_with_parent
from serving.process.lifecycle import stop_signals_blocked
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
        process: it has been started.
        ended: gets the exit code.
        has_joined: whether it takes part in changes of models.
        has_started: whether it accepts requests.
        changes: how many changes of models had been made when it was started.
        is_outdated: whether it was ended because the models changed while it loaded them.
        snapshot: what it had counted when it was last asked.
    """

    def __init__(self, process: SpawnProcess, changes: int) -> None:
        self.process = process
        self.changes = changes
        self._channel: Channel
        self.has_joined = self.has_started = self.is_outdated = False
        self.snapshot: Snapshot = []
        self.started_at = time.monotonic()
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
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

        Raises:
            OSError: the system has no process, memory or file left.
        """
        end, other_end = socket.socketpair()
        try:
            with other_end, stop_signals_blocked(), safe_path():
                process = _spawn.Process(target=_work, args=(settings, listening, other_end, expected, share))
                process.start()
            worker = cls(process, changes)
            own_functions: Functions = {name: partial(function, worker) for name, function in functions.items()}
            worker._channel = await Channel.open(end, own_functions, lost=lambda: None)  # `_end` follows
        except BaseException:
            end.close()  # which also ends the process, if there is one
            raise
        asyncio.get_running_loop().add_reader(process.sentinel, worker._end)
        return worker

    async def update_snapshot(self) -> None:
        """Ask what the worker has counted, and keep what it told before if it does not answer in time."""
        with suppress(PeerLostError, ServingError, TimeoutError):
            async with asyncio.timeout(SNAPSHOT_SECONDS):
                self.snapshot = await self.call("snapshot")

    async def call(self, function: str, *arguments: Any) -> Any:
        """Return the result of a function of the worker; raises as `Channel.call` does."""
        return await self._channel.call(function, *arguments)

    def tell(self, function: str) -> asyncio.Task[None]:
        """Call a function of the worker in a task, which also ends when the worker does."""

        async def call() -> None:
            with suppress(PeerLostError):
                await self.call(function)

        task = asyncio.create_task(call())
        self._tasks.add(task)  # keeps it from being collected
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self, number: int) -> None:
        """Send a stop signal to the worker."""
        if not self.has_started:  # it has no requests to finish
            self.kill()
        elif self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the worker at once."""
        self.process.kill()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.process.sentinel)
        self.process.join()
        self._channel.close()
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
