"""Accepts connections, spread evenly over the workers that share a listening socket."""

import asyncio
import logging
import multiprocessing
import selectors
import socket
import threading
import time
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

MAX_UNSTARTED = 8  # connections that the event loop has been given and has not started
_BEAT_SECONDS = 0.1
HANGS_SECONDS = 0.3  # without a beat of the event loop; then connections are left to other workers
_TOLERANCE = 1 / 8  # a worker with so many more connections than another still accepts the next at once

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
        with self._lock:
            self._counts[self._worker] = 0

    def leave(self) -> None:
        """Leave new connections to the others."""
        with self._lock:
            self._counts[self._worker] = _ABSENT

    def add(self, connections: int) -> None:
        """Count more connections, or fewer."""
        with self._lock:
            if self._counts[self._worker] < _ABSENT:
                self._counts[self._worker] += connections

    @property
    def count(self) -> int:
        """The connections of the worker; more than any has while it leaves them to the others."""
        count: int = self._counts[self._worker]
        return count

    @property
    def excess_to_yield(self) -> int:
        """How many more connections the worker has than the one with the fewest; 0 if that is at most an eighth."""
        counts: list[int] = self._counts[:]
        fewest = min(counts)
        excess = counts[self._worker] - fewest
        return excess if excess > fewest * _TOLERANCE else 0


def shares(workers: int) -> list[Share]:
    """Return the share of each worker; only processes that `multiprocessing` spawns can be given one."""
    counts = multiprocessing.get_context("spawn").RawArray(c_long, [_ABSENT] * workers)
    return [Share(counts, worker) for worker in range(workers)]


class Acceptor:
    """Accepts a worker's share of the connections on a socket that all workers share, for the running event loop.

    A connection wakes every worker. The one with the fewest connections accepts it at once. It takes one at a time: the
    others may have fewer by then. A thread does this: an event loop that is busy with images would let new connections
    wait for one another. While the event loop hangs, the thread leaves connections to the other workers.

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
        self._unstarted = threading.Semaphore(MAX_UNSTARTED)
        self._connecting: set[asyncio.Task[None]] = set()
        self._closing = threading.Event()
        self._close_sender, self._close_receiver = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="accept", daemon=True)
        self._beat()
        share.join()
        self._thread.start()

    async def close(self) -> None:
        """Accept nothing more; the socket stays open."""
        self._share.leave()
        self._closing.set()
        self._close_sender.close()
        await asyncio.to_thread(self._thread.join)
        self._close_receiver.close()
        self._next_beat.cancel()
        await asyncio.gather(*self._connecting)

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        self._next_beat = self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._close_receiver, selectors.EVENT_READ)
            while selector.select() and not self._closing.is_set():
                if time.monotonic() > self._beaten_at + HANGS_SECONDS:
                    self._closing.wait(_BEAT_SECONDS)
                    continue
                excess = self._share.excess_to_yield
                if excess and self._closing.wait(min(excess * HOLD_SECONDS, MAX_HOLD_SECONDS)):
                    break
                try:
                    self._accept()
                except Exception:
                    logger.exception("a connection cannot be accepted")
                    self._closing.wait(_NO_FILES_SECONDS)

    def _accept(self) -> None:
        if not self._unstarted.acquire(timeout=_BEAT_SECONDS):
            return
        try:
            accepted, _ = self._listening.accept()
        except OSError as error:
            self._unstarted.release()
            # Otherwise another worker has it, or it is gone.
            if not isinstance(error, BlockingIOError | InterruptedError | ConnectionAbortedError):
                logger.error("a connection cannot be accepted: %s", error.strerror)
                self._closing.wait(_NO_FILES_SECONDS)
            return
        accepted.setblocking(False)
        self._share.add(1)
        self._loop.call_soon_threadsafe(self._start, accepted)

    def _start(self, accepted: socket.socket) -> None:
        self._unstarted.release()
        task = self._loop.create_task(self._connect(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # the client has left
            accepted.close()
            self._share.add(-1)
