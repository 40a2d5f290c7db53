"""The threads of a worker: one pool decodes and computes, which never oversubscribes the CPUs."""

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Pool:
    """What the shares of one pool have in common.

    Attributes:
        count, free: threads in all, and those without work.
        waiting: the shares that have work and no thread for it.
        clock: the weighted seconds that count as used for a share which was idle: what the share that was given the
            last thread had used.
        may_run_inline: whether nothing has run in the event loop during this turn of it.
    """

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self.executor = ThreadPoolExecutor(count, "classify")
        self.waiting: list[Threads] = []
        self.clock = 0.0
        self.may_run_inline = True

    def allow_inline(self) -> None:
        self.may_run_inline = True


class Threads:
    """A share in a pool of threads, on one event loop.

    A free thread goes to the share that has used the least time among those whose work waits. However long one share's
    work takes and however much of it there is, the work of a share that was idle is next.

    Work waits here rather than in the pool's own queue, which is first come, first served.

    Args:
        count: the threads of a new pool; `share` returns further shares in it.
    """

    def __init__(self, count: int) -> None:
        self._pool = _Pool(count)
        self._start_share(1)

    def share(self, weight: float = 1) -> Self:
        """Return a new share in the same pool, which gets `weight` times as much time as one of weight 1."""
        share = copy.copy(self)
        share._start_share(weight)
        return share

    def _start_share(self, weight: float) -> None:
        self._weight = weight
        self._used = 0.0  # seconds divided by the weight
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def count(self) -> int:
        """The threads of the pool."""
        return self._pool.count

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Runs functions on threads that were acquired; the caller releases these."""
        return self._pool.executor

    @property
    def free(self) -> int:
        """The threads of the pool that have no work."""
        return self._pool.free

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function on the next free thread and return its result; if cancelled before that, it never runs."""
        await self.acquire()
        return await self.run_acquired(function, *args)

    async def acquire(self) -> None:
        """Wait for a free thread: `run_acquired` and `run_inline` use and free it, `release` frees it unused."""
        # A share saves no turns while it is idle.
        if not self._waiting:
            self._used = max(self._used, self._pool.clock)
        if self._pool.free:
            self._pool.free -= 1
            self._pool.clock = self._used
            return
        turn = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._pool.waiting.append(self)
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the thread was handed over just now
                self.release()
            raise

    async def run_acquired(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function on a thread that was acquired, and return its result."""
        loop = asyncio.get_running_loop()
        started = loop.time()

        def end(_: object) -> None:
            self.release(loop.time() - started)

        job = loop.run_in_executor(self._pool.executor, function, *args)
        # A running function cannot be stopped: its thread is busy until it ends, even if nobody waits for the result.
        job.add_done_callback(end)
        return await asyncio.shield(job)

    @property
    def may_run_inline(self) -> bool:
        """Whether `run_inline` would hold up this turn of the event loop for the first time."""
        return self._pool.may_run_inline

    def run_inline(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function in the event loop while the thread that was acquired stays idle, and return its result."""
        self._pool.may_run_inline = False
        asyncio.get_running_loop().call_soon(self._pool.allow_inline)
        started = time.monotonic()
        try:
            return function(*args)
        finally:
            self.release(time.monotonic() - started)

    def release(self, seconds: float = 0.0) -> None:
        """Give an acquired thread, which this share has used for so long, to whoever waits next."""
        self._used += seconds / self._weight
        pool = self._pool
        while pool.waiting:
            share = min(pool.waiting, key=lambda share: share._used)
            turn = share._waiting.popleft()
            if not share._waiting:
                pool.waiting.remove(share)
            if not turn.done():  # otherwise it was cancelled
                pool.clock = share._used
                turn.set_result(None)
                return
        pool.free += 1
        pool.clock = max(pool.clock, self._used)  # nobody waits: whoever comes next is even with this share

    def close(self) -> None:
        """Wait for running work to end."""
        self._pool.executor.shutdown()


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
    try:
        return await result
    except Exception:
        # The error refers to this frame, which would refer to it: a cycle would keep what the function had loaded.
        del result
        raise
