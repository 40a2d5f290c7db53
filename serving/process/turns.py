"""Spreads connections evenly over the workers that share a listening socket."""

import asyncio
import logging
import multiprocessing
import socket
from collections.abc import Callable
from ctypes import Array, c_long
from typing import TypeAlias

logger = logging.getLogger(__name__)

Counts: TypeAlias = "Array[c_long]"
MakeProtocol: TypeAlias = Callable[[], asyncio.Protocol]

# A worker leaves a connection to those with fewer for this long, times how many fewer. Then it accepts the connection:
# the others are busy or hang.
HOLD_SECONDS = 0.002
MAX_HOLD_SECONDS = 0.008
_NO_FILES_SECONDS = 1.0  # until accepting is tried again when the process may open no more files

_ABSENT = 2**30  # more connections than any worker has


class Share:
    """The number of connections of one worker, beside those of the others in memory that all processes share.

    Each worker writes its own number only, and the supervisor that of a worker which has ended.
    """

    def __init__(self, counts: Counts, worker: int) -> None:
        self._counts = counts
        self._worker = worker

    def join(self) -> None:
        """Count from now on."""
        self._counts[self._worker] = 0

    def leave(self) -> None:
        """Leave new connections to the others."""
        self._counts[self._worker] = _ABSENT

    def add(self, connections: int) -> None:
        """Count more connections, or fewer."""
        self._counts[self._worker] += connections

    @property
    def excess(self) -> int:
        """How many more connections the worker has than the one with the fewest."""
        counts: list[int] = self._counts[:]
        return counts[self._worker] - min(counts)


def shares(workers: int) -> list[Share]:
    """Return the share of each worker; only processes that `multiprocessing` spawns can be given one."""
    counts = multiprocessing.get_context("spawn").RawArray(c_long, [_ABSENT] * workers)
    return [Share(counts, worker) for worker in range(workers)]


class Acceptor:
    """Accepts a worker's share of the connections on a socket that all workers share, on the running event loop.

    A connection wakes every worker. The one with the fewest connections accepts it at once. It takes one at a time: the
    others may have fewer by then.

    Args:
        listening: does not block.
        share: counts the connections; `make_protocol` counts them down as they close.
        make_protocol: returns the protocol of a connection.
    """

    def __init__(self, listening: socket.socket, share: Share, make_protocol: MakeProtocol) -> None:
        self._listening = listening
        self._share = share
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._holding: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        share.join()
        self._loop.add_reader(listening, self._wake)

    async def close(self) -> None:
        """Accept nothing more; the socket stays open."""
        self._share.leave()
        self._loop.remove_reader(self._listening)
        if self._holding is not None:
            self._holding.cancel()
        await asyncio.gather(*self._connecting)

    def _wake(self) -> None:
        if self._share.excess > 0:
            self._pause(min(self._share.excess * HOLD_SECONDS, MAX_HOLD_SECONDS))
        else:
            self._accept()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._holding = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._holding = None
        self._loop.add_reader(self._listening, self._wake)
        self._accept()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker has it, or it is gone
        except OSError as error:
            logger.error("a connection cannot be accepted: %s", error.strerror)
            self._pause(_NO_FILES_SECONDS)
            return
        accepted.setblocking(False)
        self._share.add(1)
        task = self._loop.create_task(self._connect(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # the client has left
            accepted.close()
            self._share.add(-1)
