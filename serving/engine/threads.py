"""The threads of a worker: one pool decodes and computes, which never oversubscribes the CPUs."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """A pool of threads on one event loop; free threads go to urgent work first.

    Work waits here rather than in the pool's own queue, where a batch would wait behind images that are decoded for
    later batches.
    """

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self._pool = ThreadPoolExecutor(count, "classify")
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def run(self, function: Callable[[*Ts], T], *args: *Ts, urgent: bool = False) -> T:
        """Run a function on the next free thread and return its result; if cancelled before that, it never runs."""
        await self.acquire(urgent=urgent)
        return await self.run_acquired(function, *args)

    async def acquire(self, *, urgent: bool = False) -> None:
        """Wait for a free thread: `run_acquired` uses and frees it, `release` frees it unused."""
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._waiting).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the thread was handed over just now
                self.release()
            raise

    async def run_acquired(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function on a thread that was acquired, and return its result."""
        job = asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        # A running function cannot be stopped: its thread is busy until it ends, even if nobody waits for the result.
        job.add_done_callback(lambda _: self.release())
        return await asyncio.shield(job)

    def release(self) -> None:
        """Give an acquired thread to whoever waits next."""
        for queue in (self._urgent, self._waiting):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self.free += 1

    def close(self) -> None:
        """Wait for running work to end."""
        self._pool.shutdown()


async def run_abandonable(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread of its own and return its result.

    If cancelled, the thread is abandoned: it occupies no pool and does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def set_if_awaited(setter: Callable[..., None], value: object) -> None:
        if not result.done():
            setter(value)

    def run() -> None:
        with suppress(RuntimeError):  # the event loop has closed meanwhile
            try:
                value = function(*args)
            except BaseException as error:  # noqa: BLE001  # it is raised where it is awaited
                loop.call_soon_threadsafe(set_if_awaited, result.set_exception, error)
            else:
                loop.call_soon_threadsafe(set_if_awaited, result.set_result, value)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await result
