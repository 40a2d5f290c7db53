"""Decodes the images of concurrent requests: small ones at once, large ones when there is memory for them."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, ImageTooLargeError, InputSpec
from pdeinfer.images.convert import OpenedImage, open_image
from serving.engine.batching import Batcher
from serving.engine.memory_budget import MemoryBudget
from serving.engine.threads import Threads
from serving.errors import InferenceError
from serving.settings import SMALL_BYTES
from serving.telemetry.metrics import ModelMetrics

logger = logging.getLogger(__name__)

# A thread decodes this many images, of one or several requests, before the next batch gets its turn.
DECODED_TOGETHER = 8

# An image's name in errors, and its file or the reason why there is none.
NamedFile: TypeAlias = tuple[str, bytes | ImageError]
Decoded: TypeAlias = NDArray[np.uint8] | ImageError | InferenceError


@dataclass(frozen=True, slots=True)
class _Large:
    """An image that waits to be decoded, and the bytes of memory that decoding takes."""

    file: NamedFile
    size: int


class Decoder:
    """Decodes the images of one model's requests into the arrays that its network takes.

    Args:
        spec: the network's input.
        max_pixels: the most pixels of one image, counted as in step 1 of `pdeinfer.images.convert`.
        budget: the memory for large images of all models.
        metrics: records the times.
    """

    def __init__(
        self, spec: InputSpec, max_pixels: int, threads: Threads, budget: MemoryBudget, metrics: ModelMetrics
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
        """Return every image as uint8 (H, W, C), or its error, in order.

        If cancelled, images that are still waiting are not decoded.

        Args:
            files: at least one.
        """
        results = await self._batcher.run(files)
        large = (self._decode_large(result) for result in results if isinstance(result, _Large))
        decoded = iter(await asyncio.gather(*large))
        return [next(decoded) if isinstance(result, _Large) else result for result in results]

    async def _decode_large(self, image: _Large) -> Decoded:
        """Decode an image once there is memory and a thread for it."""
        await self._budget.acquire(image.size)
        try:
            await self._threads.acquire()
        except asyncio.CancelledError:
            self._budget.release(image.size)
            raise
        decoding = asyncio.create_task(self._threads.run_acquired(self._decode, image.file, self._budget.total))
        # A thread cannot be stopped: it holds its memory until it ends, even if nobody waits for the image any more.
        decoding.add_done_callback(lambda _: self._budget.release(image.size))
        return cast(Decoded, await asyncio.shield(decoding))  # not _Large: it fits into the budget

    def _decode_small(self, files: list[NamedFile]) -> list[Decoded | _Large]:
        return [self._decode(file, SMALL_BYTES) for file in files]

    def _decode(self, file: NamedFile, max_bytes: int) -> Decoded | _Large:
        """Decode an image, or return it as large if that takes more than `max_bytes` of memory."""
        name, content = file
        if isinstance(content, ImageError):
            return content
        started = time.perf_counter()
        try:
            with open_image(content, self._spec, name, max_pixels=self._max_pixels) as opened:
                size = opened.decoding_bytes()
                if size > max_bytes:
                    self._check_size(opened, size)
                    return _Large(file, size)
                decoded: Decoded = opened.to_array()
        except ImageError as error:
            # Its traceback holds the image's bytes and, through this frame, the error itself.
            error.__cause__ = error.__context__ = None
            decoded = error.with_traceback(None)
        except Exception:  # not the image's fault: out of memory, for example
            logger.exception("%s could not be decoded", name)
            decoded = InferenceError()
        self._seconds.observe(time.perf_counter() - started)
        return decoded

    def _check_size(self, opened: OpenedImage, size: int) -> None:
        if size > self._budget.total:
            width, height = opened.whole_size
            raise ImageTooLargeError(
                f"{opened.name}: expected an image that decodes in at most {self._budget.total / 1e6:.0f} MB, "
                f"got {width} x {height} pixels that take {size / 1e6:.0f} MB: send a smaller image, or a baseline JPEG"
            )
