"""Batches the work of concurrent requests."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from prometheus_client import Histogram

from serving.engine.threads import Threads

T = TypeVar("T")
R = TypeVar("R")


# A batch is made smaller if it would take longer: other models wait for its thread.
MAX_BATCH_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Request(Generic[T, R]):
    """The items of one request.

    Attributes:
        arrived: when the request came, on the event loop's clock.
        done: receives the results; cancelled when nobody waits for them any more.
        results: the results so far by position, as batches may end in any order.
        taken: the number of items that batches have taken.
    """

    items: Sequence[T]
    arrived: float
    done: asyncio.Future[list[R]]
    results: dict[int, R] = field(default_factory=dict)
    taken: int = 0


class Batcher(Generic[T, R]):
    """Process the items of concurrent requests in batches, on a pool of threads and one event loop.

    A batch is taken from the queue when a thread is free for it, so batches grow with the load. Cancelled items are
    left out.

    Args:
        work: maps the items of a batch to their results, in order, in one of the threads or in the event loop.
        queue_seconds: records how long each request waited for its first batch.
        max_batch_size: the most items of one batch.
        max_batches: the most batches at a time.
        max_delay: seconds that the first item of a batch waits for others; 0 takes only those already waiting.
        max_inline: a batch runs in the event loop if it should take at most this many seconds, by the time that the
            last one took for an item; 0: never. At most one does so in a turn of the event loop.
    """

    def __init__(
        self,
        work: Callable[[list[T]], list[R]],
        threads: Threads,
        queue_seconds: Histogram,
        *,
        max_batch_size: int,
        max_batches: int,
        max_delay: float = 0.0,
        max_inline: float = 0.0,
    ) -> None:
        self._work = work
        self._threads = threads
        self._queue_seconds = queue_seconds
        self._max_batch_size = max_batch_size
        self._max_batches = max_batches
        self._max_delay = max_delay
        self._max_inline = max_inline
        self._requests: deque[_Request[T, R]] = deque()
        self._waiting = 0  # items that no batch has taken
        self._seconds_per_item: float | None = None  # of the last batch
        self._full = asyncio.Event()  # set while a whole batch waits
        self._dispatcher: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()

    async def run(self, items: Sequence[T]) -> list[R]:
        """Return the result of every item, in order; if cancelled, items that no batch has taken are dropped.

        Args:
            items: at least one; must not change afterwards.
        """
        loop = asyncio.get_running_loop()
        request: _Request[T, R] = _Request(items, loop.time(), loop.create_future())
        self._requests.append(request)
        self._waiting += len(items)
        if self._waiting >= self._max_batch_size:
            self._full.set()
        if self._dispatcher is None:
            # An empty context: a batch belongs to no single request, whose id and trace would otherwise leak into it.
            self._dispatcher = asyncio.create_task(self._dispatch(), context=Context())
        try:
            return await request.done
        except BaseException:  # cancelled, or a batch with some of its items failed
            self._waiting -= len(items) - request.taken
            if request in self._requests:
                self._requests.remove(request)
            raise

    async def _dispatch(self) -> None:
        """Start batches until nothing waits."""
        try:
            while self._requests:
                await self._wait_for_more()
                if len(self._batches) == self._max_batches:
                    await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)
                await self._threads.acquire()
                # Spread a large request on an idle server over its threads.
                free = min(1 + self._threads.free, self._max_batches - len(self._batches))
                parts = self._take(min(math.ceil(self._waiting / free), self._largest_batch()))
                if self._is_short(parts) and self._threads.may_run_inline:
                    await self._run_batch(parts, inline=True)
                    await asyncio.sleep(0)  # whatever else is due
                    continue
                batch = asyncio.create_task(self._run_batch(parts))
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
        finally:
            self._dispatcher = None

    def _largest_batch(self) -> int:
        if self._seconds_per_item is None or self._seconds_per_item * self._max_batch_size <= MAX_BATCH_SECONDS:
            return self._max_batch_size
        return max(1, int(MAX_BATCH_SECONDS / self._seconds_per_item))

    def _is_short(self, parts: list[tuple[_Request[T, R], range]]) -> bool:
        """Return whether a batch should take at most `max_inline` seconds; the first one is not known to."""
        items = sum(len(part) for _, part in parts)
        return self._seconds_per_item is not None and self._seconds_per_item * items <= self._max_inline

    async def _wait_for_more(self) -> None:
        delay = self._requests[0].arrived + self._max_delay - asyncio.get_running_loop().time()
        if delay > 0 and self._waiting < self._max_batch_size:
            self._full.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), delay)

    def _take(self, count: int) -> list[tuple[_Request[T, R], range]]:
        """Take up to `count` items from the front of the queue, without cancelled ones."""
        parts = []
        while self._requests and count:
            request = self._requests[0]
            part = range(request.taken, min(request.taken + count, len(request.items)))
            if request.done.done() or part.stop == len(request.items):
                self._requests.popleft()
            if not request.done.done():
                request.taken = part.stop
                count -= len(part)
                self._waiting -= len(part)
                parts.append((request, part))
        return parts

    async def _run_batch(self, parts: list[tuple[_Request[T, R], range]], *, inline: bool = False) -> None:
        """Process a batch on the acquired thread or in the event loop, and resolve the requests that are complete."""
        if not parts:  # everything that waited was cancelled
            self._threads.release()
            return
        now = asyncio.get_running_loop().time()
        for request, part in parts:
            if part.start == 0:
                self._queue_seconds.observe(now - request.arrived)
        items = [request.items[index] for request, part in parts for index in part]
        started = time.monotonic()
        try:
            if inline:
                results = iter(self._threads.run_inline(self._work, items))
            else:
                results = iter(await self._threads.run_acquired(self._work, items))
        except Exception as error:  # noqa: BLE001  # it is raised where the results are awaited
            for request, _ in parts:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        self._seconds_per_item = (time.monotonic() - started) / len(items)
        for request, part in parts:
            request.results.update((index, next(results)) for index in part)
            if len(request.results) == len(request.items) and not request.done.done():
                request.done.set_result([request.results[index] for index in range(len(request.items))])
