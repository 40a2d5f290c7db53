"""The images of concurrent requests decoded: small ones as they come, large ones as there is memory for them."""

import asyncio
import time
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, ImageTooLargeError, InputSpec
from pdeinfer.images.convert import to_array
from serving.engine.batching import Batcher
from serving.engine.pixel_budget import PixelBudget
from serving.engine.threads import Threads
from serving.telemetry.metrics import ModelMetrics

# As many images, of one or many requests, a thread decodes without giving the next batch its turn.
DECODED_TOGETHER = 8
# An image of up to so many pixels needs no room in the budget: a thread decodes one at a time, in at most 20 MB.
SMALL_PIXELS = 1_000_000

# The name that errors give an image, and its file, or why there is no file.
NamedFile: TypeAlias = tuple[str, bytes | ImageError]
Decoded: TypeAlias = NDArray[np.uint8] | ImageError


class Decoder:
    """The images of one model's requests, as the network takes them.

    Args:
        spec: what it takes.
        max_pixels: the most pixels of one image.
        budget: for all images, of all models, that are not small.
        metrics: get the times.
    """

    def __init__(
        self, spec: InputSpec, max_pixels: int, threads: Threads, budget: PixelBudget, metrics: ModelMetrics
    ) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._threads = threads
        self._budget = budget
        self._seconds = metrics.decode_seconds
        self._batcher = Batcher(
            self._decode_small,
            threads,
            metrics.decode_queue_seconds,
            max_batch_size=DECODED_TOGETHER,
            max_batches=threads.count,
        )

    async def run(self, files: Sequence[NamedFile]) -> list[Decoded]:
        """Return every image as uint8 (H, W, C), in order, or why there is none; cancelled, what waits is left alone.

        Args:
            files: at least one.
        """
        decoded = await self._batcher.run(files)
        large = {place: image for place, image in enumerate(decoded) if isinstance(image, ImageTooLargeError)}
        if large:
            images = await asyncio.gather(*(self._decode_large(files[place], large[place]) for place in large))
            for place, image in zip(large, images, strict=True):
                decoded[place] = image
        return decoded

    async def _decode_large(self, file: NamedFile, error: ImageTooLargeError) -> Decoded:
        """Decode an image that is not small, once there is room and a thread for it."""
        pixels = error.pixels if error.pixels and error.pixels <= self._max_pixels else 0  # 0: it is refused anyway
        await self._budget.acquire(pixels)
        try:
            await self._threads.acquire()
        except asyncio.CancelledError:
            self._budget.release(pixels)
            raise
        decoding = asyncio.create_task(self._threads.run_acquired(self._decode, file, self._max_pixels))
        # A thread cannot be stopped: what it uses is free when it has ended, not when nobody waits for it any more.
        decoding.add_done_callback(lambda _: self._budget.release(pixels))
        return await asyncio.shield(decoding)

    def _decode_small(self, files: list[NamedFile]) -> list[Decoded]:
        return [self._decode(file, min(SMALL_PIXELS, self._max_pixels)) for file in files]

    def _decode(self, file: NamedFile, max_pixels: int) -> Decoded:
        name, content = file
        if isinstance(content, ImageError):
            return content
        started = time.perf_counter()
        try:
            decoded: Decoded = to_array(content, self._spec, name, max_pixels=max_pixels)
        except ImageError as error:
            # What it refers to, by its traceback, are the bytes of the image and, in the end, itself.
            error.__cause__ = error.__context__ = None
            decoded = error.with_traceback(None)
        if not isinstance(decoded, ImageTooLargeError):  # not decoded: refused, or about to come again as a large one
            self._seconds.observe(time.perf_counter() - started)
        return decoded
