"""A worker's side of the channel to its supervisor."""

import asyncio
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress

from serving.engine.models import Action, Expected, Models, PreparedChange
from serving.errors import NotReadyError, StoppingError
from serving.process.accepting import Share
from serving.process.channel import Channel, Functions, PeerLostError
from serving.process.latest import Latest
from serving.telemetry.metrics import Snapshot, snapshot

METRICS_SECONDS = 5.0


class Membership:
    """A worker among others: it answers pings, and changes its models when all workers do.

    Args:
        end: of a socket pair to the supervisor.
        expected: the models to serve at first, as `Models.load` takes them.
        share: its share of the connections.
    """

    def __init__(self, end: socket.socket, expected: Expected | None, share: Share) -> None:
        self.expected = expected
        self.share = share
        self._end = end
        self._prepared: PreparedChange | None = None
        self._metrics: Latest[Snapshot] = Latest(lambda: self._channel.call("metrics"))

    async def open(self) -> None:
        """Answer pings from now on, on the running event loop; stop as after SIGTERM when the supervisor ends."""
        functions: Functions = {
            "ping": self._ping,
            "snapshot": self._snapshot,
            "prepare": self._prepare,
            "apply": self._apply,
            "discard": self._discard,
        }
        self._channel = await Channel.open(self._end, functions, lost=lambda: signal.raise_signal(signal.SIGTERM))

    async def join(self, models: Models) -> None:
        """Take part in changes of models; return when requests may be accepted."""
        self._models = models
        await self._channel.call("join", models.digests)

    async def report_start(self) -> None:
        """Say that requests are accepted."""
        await self._channel.call("started")

    async def report_failure(self, message: str) -> None:
        """Say why no requests will be accepted."""
        with suppress(PeerLostError):
            await self._channel.call("failed", message)

    async def change(self, name: str, action: Action) -> tuple[str, ...]:
        """Load, reload or unload a model in all workers, and return the versions that they serve then.

        Raises:
            ChangeRefusedError: a worker could not change it, and nothing was changed.
            StoppingError: the server is stopping.
        """
        try:
            return tuple(await self._channel.call("change", name, action))
        except PeerLostError as error:
            raise StoppingError from error

    async def metrics(self) -> Snapshot:
        """Return what all workers have counted.

        Raises:
            NotReadyError: the server is stopping, or its supervisor does not answer.
        """
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                return await self._metrics.get()
        except (PeerLostError, TimeoutError) as error:
            raise NotReadyError("the metrics of the workers cannot be collected now") from error

    async def _ping(self) -> None:
        pass

    async def _snapshot(self) -> Snapshot:
        return await asyncio.to_thread(snapshot)

    async def _prepare(self, name: str, action: Action) -> dict[str, Mapping[str, str]]:
        """Load the new models; return the digests of all that are served then, to compare them with other workers."""
        self._prepared = await self._models.prepare(name, action)
        return self._prepared.digests_after(self._models.digests)

    async def _apply(self) -> None:
        if self._prepared is not None:
            self._models.apply(self._prepared)
            self._prepared = None

    async def _discard(self) -> None:
        self._prepared = None
