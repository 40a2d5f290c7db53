"""Decodes images that may be costly in processes that can be stopped, when there is memory for them."""

import asyncio
import copy
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pdeinfer import InputSpec
from pdeinfer.images.cost import Estimate, estimate_webp
from pdeinfer.images.formats import HEAD_BYTES
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.images.limits import DecodingLimits
from serving.engine.memory_budget import MemoryBudget
from serving.engine.threads import Threads
from serving.settings import FIRST_DECODING_BYTES, Settings
from serving.telemetry.metrics import ModelMetrics


@dataclass(slots=True)
class _Seconds:
    """How long an image has waited for processes and has been decoded, in all tries."""

    waiting: float = 0.0
    decoding: float = 0.0


class Isolation:
    """Decodes images in processes that are stopped when an image takes too much memory or time.

    A running process has its limit of memory from one budget. As many run at a time as the server has threads, beside
    these: neither cheap images nor the network wait for costly ones. The shares take turns as those of `Threads` do.
    """

    def __init__(self, settings: Settings) -> None:
        self._count = settings.worker_threads
        self._threads = Threads(self._count)  # which wait for the processes
        self._budget = MemoryBudget(settings.decoding_bytes)
        self._limits = DecodingLimits(settings.max_image_pixels, FIRST_DECODING_BYTES, settings.max_decoding_seconds)
        self._decoders = IsolatedDecoders()

    def share(self) -> Self:
        """Return a new share in the same processes and memory."""
        share = copy.copy(self)
        share._threads = self._threads.share()
        return share

    def start(self) -> None:
        """Start the processes ahead, as many as can decode at a time."""
        self._decoders.start(min(self._count, self._budget.total // self._limits.address_space(0)))

    def close(self) -> None:
        """End the processes."""
        self._decoders.close()
        self._threads.close()

    async def decode(self, content: bytes, spec: InputSpec, name: str, metrics: ModelMetrics) -> NDArray[np.uint8]:
        """Return an image as uint8 (H, W, C); if cancelled, decoding stops.

        Args:
            metrics: records the times, those of all tries together.

        Raises:
            ImageTooLargeError: its header tells that it takes more memory than the budget.
            ImageTooCostlyError: it takes more memory than its header tells, or too much time.
            ImageError: as `pdeinfer.images.convert.to_array` raises it.
            RuntimeError: the process failed for another reason.
        """
        # A photograph in JPEG is decoded at a fraction of its size: it needs no second try.
        estimate = estimate_webp(content[:HEAD_BYTES]) or Estimate(0, 0, 0)
        seconds = _Seconds()
        try:
            while True:
                limits = replace(self._limits, bytes=max(self._limits.bytes, estimate.bytes))
                if limits.address_space(len(content)) > self._budget.total:
                    raise estimate.too_large(name, self._budget.total)
                decoded = await self._decode_within(limits, content, spec, name, seconds)
                if not isinstance(decoded, Estimate):
                    return decoded
                estimate = decoded
        except asyncio.CancelledError:
            seconds.decoding = 0.0  # it was not decoded to the end: there is nothing to record
            raise
        finally:
            metrics.process_queue_seconds.observe(seconds.waiting)
            if seconds.decoding:
                metrics.decode_seconds.observe(seconds.decoding)

    async def _decode_within(
        self, limits: DecodingLimits, content: bytes, spec: InputSpec, name: str, seconds: _Seconds
    ) -> NDArray[np.uint8] | Estimate:
        memory = limits.address_space(len(content))
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        try:
            await self._threads.acquire()
            try:
                await self._budget.acquire(memory)
            except asyncio.CancelledError:
                self._threads.release()
                raise
        finally:
            started = loop.time()
            seconds.waiting += started - arrived
        decoder = self._decoders.take()

        def end(decoding: asyncio.Future[NDArray[np.uint8] | Estimate]) -> None:
            self._decoders.give(decoder)
            self._budget.release(memory)
            self._threads.release(loop.time() - started)
            decoding.exception()  # of a stopped process, which nobody awaits

        decoding = loop.run_in_executor(self._threads.executor, decoder.decode, content, spec, name, limits)
        decoding.add_done_callback(end)
        try:
            return await asyncio.shield(decoding)
        except asyncio.CancelledError:
            if not decoding.done():  # otherwise another image may have the decoder
                decoder.stop()
            raise
        finally:
            seconds.decoding += loop.time() - started
