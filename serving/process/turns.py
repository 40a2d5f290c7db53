"""Spreads connections evenly over the workers that share a listening socket."""

import asyncio
import logging
import multiprocessing
import selectors
import socket
import threading
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

MAX_UNSTARTED = 16  # connections that an event loop is given before it has started the first: it may hang

_ABSENT = 2**30  # more connections than any worker has


class Share:
    """The number of connections of one worker, beside those of the others in memory that all processes share.

    Each worker writes its own number only, and the supervisor that of a worker which has ended.
    """

    def __init__(self, counts: Counts, worker: int) -> None:
        self._counts = counts
        self._worker = worker
        self._lock = threading.Lock()  # the event loop and the thread that accepts both count

    def __reduce__(self) -> tuple[type["Share"], tuple[Counts, int]]:
        return Share, (self._counts, self._worker)  # each process has its own lock

    def join(self) -> None:
        """Count from now on."""
        self._counts[self._worker] = 0

    def leave(self) -> None:
        """Leave new connections to the others."""
        self._counts[self._worker] = _ABSENT

    def add(self, connections: int) -> None:
        """Count more connections, or fewer."""
        with self._lock:
            self._counts[self._worker] += connections

    @property
    def excess(self) -> int:
        """How many more connections the worker has than the one with the fewest; 0 for at most an eighth more."""
        counts: list[int] = self._counts[:]
        fewest = min(counts)
        excess = counts[self._worker] - fewest
        return excess if excess > fewest // 8 else 0


def shares(workers: int) -> list[Share]:
    """Return the share of each worker; only processes that `multiprocessing` spawns can be given one."""
    counts = multiprocessing.get_context("spawn").RawArray(c_long, [_ABSENT] * workers)
    return [Share(counts, worker) for worker in range(workers)]


class Acceptor:
    """Accepts a worker's share of the connections on a socket that all workers share, for the running event loop.

    A connection wakes every worker. The one with the fewest connections accepts it at once. It takes one at a time: the
    others may have fewer by then. A thread does this: a busy event loop, which gets to each of its tasks every few
    hundredths of a second, would let new connections wait for one another.

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
        self._room = threading.Semaphore(MAX_UNSTARTED)
        self._connecting: set[asyncio.Task[None]] = set()
        self._closing = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="accept", daemon=True)
        share.join()
        self._thread.start()

    async def close(self) -> None:
        """Accept nothing more; the socket stays open."""
        self._share.leave()
        self._closing.set()
        self._wake.close()
        await asyncio.to_thread(self._thread.join)
        self._woken.close()
        await asyncio.gather(*self._connecting)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                excess = self._share.excess
                if not (excess > 0 and self._closing.wait(min(excess * HOLD_SECONDS, MAX_HOLD_SECONDS))):
                    self._accept()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker has it, or it is gone
        except OSError as error:
            logger.error("a connection cannot be accepted: %s", error.strerror)
            self._closing.wait(_NO_FILES_SECONDS)
            return
        accepted.setblocking(False)
        self._share.add(1)
        self._room.acquire()
        self._loop.call_soon_threadsafe(self._start, accepted)

    def _start(self, accepted: socket.socket) -> None:
        self._room.release()
        task = self._loop.create_task(self._connect(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # the client has left
            accepted.close()
            self._share.add(-1)
