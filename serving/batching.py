"""The images of concurrent requests, computed together."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from serving.errors import QueueFullError
from serving.metrics import ModelMetrics
from serving.threads import Threads

logger = logging.getLogger(__name__)

Outcome: TypeAlias = NDArray[np.float32] | Exception  # the probabilities (classes,) of one image, or why there are none


@dataclass(slots=True, eq=False)
class _Request:
    """The images of one request that wait or are computed.

    Attributes:
        pixels: uint8 (N, H, W, C).
        arrived: when, on the event loop's clock.
        done: gets the N outcomes; cancelled where nobody waits for them any more.
        outcomes: those there are; batches may end in any order.
        taken: how many images went into batches.
    """

    pixels: NDArray[np.uint8]
    arrived: float
    done: asyncio.Future[list[Outcome]]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    taken: int = 0


class Batcher:
    """Run a network on the images of concurrent requests in batches; it belongs to one event loop.

    A batch is taken from the queue when a thread is free to compute it, so batches grow with the load. What was
    cancelled by then is left out.

    Args:
        compute: from uint8 images (N, H, W, C) to float32 probabilities (N, classes); runs in `threads`.
        max_batch_size: the most images of one batch.
        max_delay: seconds that the first image of a batch waits for others; 0: takes those that are there.
        max_queue: the most images that are admitted at a time.
        max_batches: the most batches computed at a time.

    Attributes:
        admitted: images that are being decoded, wait or are computed.
        waiting: those of them that wait for a batch.
    """

    def __init__(
        self,
        compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        threads: Threads,
        metrics: ModelMetrics,
        *,
        max_batch_size: int,
        max_delay: float,
        max_queue: int,
        max_batches: int,
    ) -> None:
        self.admitted = 0
        self.waiting = 0
        self._compute = compute
        self._threads = threads
        self._metrics = metrics
        self._max_batch_size = max_batch_size
        self._max_delay = max_delay
        self._max_queue = max_queue
        self._max_batches = max_batches
        self._requests: deque[_Request] = deque()
        self._full = asyncio.Event()  # set while a whole batch waits
        self._dispatcher: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Count `images` as admitted while the caller decodes and computes them.

        Raises:
            QueueFullError: there would be more than the queue may hold.
        """
        if self.admitted + images > self._max_queue:
            raise QueueFullError
        self.admitted += images
        self._metrics.admitted_images.inc(images)
        try:
            yield
        finally:
            self.admitted -= images
            self._metrics.admitted_images.dec(images)

    async def run(self, pixels: NDArray[np.uint8]) -> list[Outcome]:
        """Return the outcome of every image, in order; cancelled, those that no batch has taken are never computed.

        Args:
            pixels: uint8 (N, H, W, C) with N of at least 1, already admitted; not to be changed any more.
        """
        loop = asyncio.get_running_loop()
        request = _Request(pixels, loop.time(), loop.create_future())
        self._requests.append(request)
        self.waiting += len(pixels)
        if self.waiting >= self._max_batch_size:
            self._full.set()
        if self._dispatcher is None:
            # In a context of its own: batches belong to no one request, and its id and trace would stay as long.
            self._dispatcher = asyncio.create_task(self._dispatch(), context=Context())
        try:
            return await request.done
        except asyncio.CancelledError:
            self.waiting -= len(pixels) - request.taken
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
                await self._threads.acquire(urgent=True)
                # A large request on an idle server is spread over its threads.
                free = min(1 + self._threads.free, self._max_batches - len(self._batches))
                parts = self._take(min(math.ceil(self.waiting / free), self._max_batch_size))
                batch = asyncio.create_task(self._run_batch(parts))
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
        finally:
            self._dispatcher = None

    async def _wait_for_more(self) -> None:
        delay = self._requests[0].arrived + self._max_delay - asyncio.get_running_loop().time()
        if delay > 0 and self.waiting < self._max_batch_size:
            self._full.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), delay)

    def _take(self, count: int) -> list[tuple[_Request, slice]]:
        """Take up to `count` images from the front of the queue, none that nobody waits for."""
        parts = []
        while self._requests and count:
            request = self._requests[0]
            part = slice(request.taken, min(request.taken + count, len(request.pixels)))
            if request.done.done() or part.stop == len(request.pixels):
                self._requests.popleft()
            if not request.done.done():
                request.taken = part.stop
                images = part.stop - part.start
                count -= images
                self.waiting -= images
                parts.append((request, part))
        return parts

    async def _run_batch(self, parts: list[tuple[_Request, slice]]) -> None:
        """Compute on the thread that was acquired, and answer the requests that are complete."""
        if not parts:  # all that waited was cancelled meanwhile
            self._threads.release()
            return
        now = asyncio.get_running_loop().time()
        for request, part in parts:
            if part.start == 0:
                self._metrics.queue_seconds.observe(now - request.arrived)
        images = [request.pixels[part] for request, part in parts]
        outcomes = iter(await self._threads.run_acquired(self._outcomes, images))
        for request, part in parts:
            request.outcomes.update((index, next(outcomes)) for index in range(part.start, part.stop))
            if len(request.outcomes) == len(request.pixels) and not request.done.done():
                request.done.set_result([request.outcomes[index] for index in range(len(request.pixels))])

    def _outcomes(self, images: list[NDArray[np.uint8]]) -> list[Outcome]:
        """Compute images together and, where that fails, one by one."""
        batch = np.concatenate(images) if len(images) > 1 else images[0]
        self._metrics.batch_images.observe(len(batch))
        try:
            with self._metrics.inference_seconds.time():
                return list(self._compute(batch))
        except Exception as error:
            logger.exception("the network failed on %d images", len(batch))
            if len(batch) == 1:
                return [error]
            return [outcome for image in batch for outcome in self._outcomes([image[np.newaxis]])]
