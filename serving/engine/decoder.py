"""Decodes the images of concurrent requests: tiny ones at once, cheap ones in threads, the others in processes."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, InputSpec
from pdeinfer.images.convert import OpenedImage, open_image
from pdeinfer.images.cost import is_plain
from pdeinfer.images.damage import without_frames
from serving.engine.batching import Batcher
from serving.engine.isolation import Isolation
from serving.engine.threads import Threads
from serving.errors import InferenceError
from serving.telemetry.metrics import ModelMetrics

logger = logging.getLogger(__name__)

# A thread decodes this many images, of one or several requests, before the next batch gets its turn.
DECODED_TOGETHER = 8

# Handing smaller images to a thread takes longer than decoding them.
TINY_FILE_BYTES = 4 * 2**10  # of all images of a request
TINY_PIXELS = 2**14  # of each, and of what the network takes

CHEAP_FILE_BYTES = 256 * 2**10
CHEAP_BYTES = 4 * 2**20  # of memory

# An image's name in errors, and its file or the reason why there is none.
NamedFile: TypeAlias = tuple[str, bytes | ImageError]
Decoded: TypeAlias = NDArray[np.uint8] | ImageError | InferenceError


class Decoder:
    """Decodes the images of one model's requests into the arrays that its network takes.

    Args:
        spec: the network's input.
        max_pixels: the most pixels of one image, counted as in step 1 of `pdeinfer.images.convert`.
        isolation: decodes the images that may be costly, in a share of the model.
        metrics: records the times.
    """

    def __init__(
        self, spec: InputSpec, max_pixels: int, threads: Threads, isolation: Isolation, metrics: ModelMetrics
    ) -> None:
        self._spec = spec
        self._isolation = isolation.share()
        self._metrics = metrics
        self._cheap = CheapImages(spec, max_pixels, metrics)
        self._batcher = Batcher(
            self._cheap.decode,
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
        results = self._decode_tiny(files)
        if all(result is not None for result in results):
            self._metrics.decode_queue_seconds.observe(0)
        for decode in (self._batcher.run, self._decode_isolated):
            left = [file for file, result in zip(files, results, strict=True) if result is None]
            if left:
                decoded = iter(await decode(left))
                results = [next(decoded) if result is None else result for result in results]
        return [result for result in results if result is not None]

    def _decode_tiny(self, files: Sequence[NamedFile]) -> list[Decoded | None]:
        """Return every image decoded at once, or None if it may take long, in order."""
        sizes = (len(content) for _, content in files if isinstance(content, bytes))
        if self._spec.height * self._spec.width > TINY_PIXELS or sum(sizes) > TINY_FILE_BYTES:
            return [None] * len(files)
        return [self._cheap.decode_one(*file, _is_tiny) for file in files]

    async def _decode_isolated(self, files: Sequence[NamedFile]) -> list[Decoded | None]:
        return await asyncio.gather(*(self._decode_in_process(*file) for file in files))

    async def _decode_in_process(self, name: str, content: bytes | ImageError) -> Decoded:
        if isinstance(content, ImageError):
            return content
        try:
            return await self._isolation.decode(content, self._spec, name, self._metrics)
        except Exception as error:  # noqa: BLE001
            return _outcome(name, error)


class CheapImages:
    """Decodes images that are surely cheap.

    It holds no reference to its Decoder: that would be a cycle, and a replaced model would stay in memory until the
    garbage collector runs.
    """

    def __init__(self, spec: InputSpec, max_pixels: int, metrics: ModelMetrics) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._seconds = metrics.decode_seconds

    def decode(self, files: list[NamedFile]) -> list[Decoded | None]:
        """Return every image decoded, its error, or None if it may be costly, in order."""
        return [self.decode_one(*file, _is_cheap) for file in files]

    def decode_one(
        self, name: str, content: bytes | ImageError, may_decode: Callable[[OpenedImage], bool]
    ) -> Decoded | None:
        """Return an image decoded, its error, or None if its header tells that it may be costly.

        Args:
            may_decode: judges a file of a plain format by its header.
        """
        if isinstance(content, ImageError):
            return content
        if len(content) > CHEAP_FILE_BYTES or not is_plain(content):
            return None
        started = time.perf_counter()
        try:
            with open_image(content, self._spec, name, max_pixels=self._max_pixels) as opened:
                if not may_decode(opened):
                    return None
                decoded: Decoded = opened.to_array()
        except Exception as error:  # noqa: BLE001
            decoded = _outcome(name, error)
        self._seconds.observe(time.perf_counter() - started)
        return decoded


def _is_tiny(opened: OpenedImage) -> bool:
    width, height = opened.whole_size
    return width * height <= TINY_PIXELS


def _is_cheap(opened: OpenedImage) -> bool:
    return opened.estimate().bytes <= CHEAP_BYTES


def _outcome(name: str, error: Exception) -> ImageError | InferenceError:
    """Return the result for an image that could not be decoded."""
    if not isinstance(error, ImageError):  # not the image's fault: out of memory, for example
        logger.error("%s could not be decoded", name, exc_info=error)
        return InferenceError()
    return without_frames(error)
