"""The threads of a worker: one pool for all that decodes and computes, so that its CPUs are never oversubscribed."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A pool of threads whose free threads are given to urgent work first; it belongs to one event loop.

    What waits for a thread waits here and not in the pool's own queue: there, a batch would stand behind the images
    that are to be decoded for the batches after it.
    """

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self._pool = ThreadPoolExecutor(count, "classify")
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what `function` returns, once a thread was free to run it; cancelled before that, it never runs."""
        await self.acquire()
        return await self.run_acquired(function, *args)

    async def acquire(self, *, urgent: bool = False) -> None:
        """Wait for a free thread; `run_acquired` uses it and frees it, `release` frees it unused."""
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._waiting).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was this one's turn, just now
                self.release()
            raise

    async def run_acquired(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        job = asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        # What runs cannot be stopped: its thread is free when it has ended, not when nobody waits for it any more.
        job.add_done_callback(lambda _: self.release())
        return await asyncio.shield(job)

    def release(self) -> None:
        for queue in (self._urgent, self._waiting):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self.free += 1

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()
