"""One version of a model: loaded, warm, and classifying the images of concurrent requests."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from opentelemetry import trace

from pdeinfer import ImageError, Prediction, Predictor
from pdeinfer.images import to_array
from pdeinfer.package import ModelPackage
from serving.batching import Batcher
from serving.errors import DeadlineError, InferenceError
from serving.metrics import ModelMetrics
from serving.settings import Settings
from serving.threads import Threads
from serving.uploads import Upload

_tracer = trace.get_tracer("pdeinfer")

# What comes of an image: its classes, or why there are none.
Outcome: TypeAlias = Prediction | ImageError | InferenceError | DeadlineError

# A thread decodes this many images of a request before the next request's turn.
DECODE_CHUNK = 8


class ServedModel:
    """One version of a model; once replaced or unloaded, it still answers those who hold it.

    Args:
        package: what to load.
        version: a number, as text.
        settings: the device and the limits.
        threads: where its images are decoded and classified.

    Raises:
        ModelPackageError: the package is damaged.
        DeviceError: the device cannot be used.
    """

    def __init__(self, package: ModelPackage, version: str, settings: Settings, threads: Threads) -> None:
        self.name = package.card.preset.name
        self.version = version
        self.card = package.card
        self.spec = package.card.preset.input
        self.labels = package.card.preset.labels
        max_batch_size, max_delay_ms, max_queue = settings.batching(self.name)
        # Many batches at a time on one thread each do more than one batch on many threads.
        self.predictor = Predictor(package, device=settings.device, threads=1, batch_size=max_batch_size)
        self.info = self.predictor.info()
        self.metrics = ModelMetrics(self.name, version)
        self._max_batch_size = max_batch_size
        self._max_image_pixels = settings.max_image_pixels
        self._threads = threads
        self._batcher = Batcher(
            self.predictor.predict_proba,
            threads,
            self.metrics,
            max_batch_size=max_batch_size,
            max_delay=max_delay_ms / 1000,
            max_queue=max_queue,
            max_batches=threads.count if self.info.device == "cpu" else 1,
        )
        for images in (1, max_batch_size):  # what the first run of a size sets up, no request waits for
            blank = np.zeros((images, self.spec.height, self.spec.width, self.spec.channels), np.uint8)
            self.predictor.predict_proba(blank)

    async def infer(self, pixels: NDArray[np.uint8], deadline: float) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of images that have the network's shape.

        Cancelled, it takes the images out of the queue.

        Args:
            pixels: uint8 (N, H, W, C) with N of at least 1; not to be changed any more.
            deadline: when to give up, on the event loop's clock.

        Raises:
            QueueFullError, DeadlineError: there is no room or no time for them.
            InferenceError: the network failed.
        """
        with self._batcher.admit(len(pixels)):
            async with _until(deadline):
                outcomes = await self._compute(pixels)
        rows = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        if len(rows) < len(outcomes):
            raise InferenceError
        return np.stack(rows)

    async def classify(self, uploads: Sequence[Upload], top_k: int, deadline: float) -> list[Outcome]:
        """Return one prediction per image, in order, or why there is none.

        Raises:
            QueueFullError, DeadlineError: there is no room or no time for them.
        """
        with self._batcher.admit(len(uploads)):
            async with _until(deadline):
                return await self._classify(uploads, 1, top_k)

    async def stream(self, uploads: Sequence[Upload], top_k: int, deadline: float) -> AsyncIterator[list[Outcome]]:
        """Yield the same in parts, each once it and those before it are done.

        Raises:
            QueueFullError, DeadlineError: as for `classify`, before the first part; afterwards the images for which
                no time was left have the DeadlineError in their place.
        """
        size = self._max_batch_size
        with self._batcher.admit(len(uploads)):
            parts = [
                asyncio.create_task(self._classify(uploads[start : start + size], start + 1, top_k))
                for start in range(0, len(uploads), size)
            ]
            try:
                for number, part in enumerate(parts):
                    try:
                        async with _until(deadline):
                            outcomes = await part
                    except DeadlineError as error:
                        if number == 0:
                            raise
                        outcomes = [error] * len(uploads[number * size : (number + 1) * size])
                    yield outcomes
            finally:
                for part in parts:
                    part.cancel()

    async def _classify(self, uploads: Sequence[Upload], first_number: int, top_k: int) -> list[Outcome]:
        with _tracer.start_as_current_span("decode"):
            decoded = await self._decode_all(uploads, first_number)
        arrays = [image for image in decoded if not isinstance(image, ImageError)]
        computed = iter(await self._compute(np.stack(arrays)) if arrays else ())
        outcomes: list[Outcome] = []
        for image in decoded:
            result = image if isinstance(image, ImageError) else next(computed)
            if isinstance(result, np.ndarray):
                outcomes.append(self.predictor.rank(result, top_k))
            else:
                outcomes.append(result if isinstance(result, ImageError) else InferenceError())
        return outcomes

    async def _compute(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32] | Exception]:
        with _tracer.start_as_current_span("compute", attributes={"model": self.name, "images": len(pixels)}):
            return await self._batcher.run(pixels)

    async def _decode_all(self, uploads: Sequence[Upload], first_number: int) -> list[NDArray[np.uint8] | ImageError]:
        chunks = await asyncio.gather(
            *(
                self._threads.run(self._decode, uploads[start : start + DECODE_CHUNK], first_number + start)
                for start in range(0, len(uploads), DECODE_CHUNK)
            )
        )
        return [image for chunk in chunks for image in chunk]

    def _decode(self, uploads: Sequence[Upload], first_number: int) -> list[NDArray[np.uint8] | ImageError]:
        images: list[NDArray[np.uint8] | ImageError] = []
        for number, upload in enumerate(uploads, first_number):
            name = upload.filename or f"image {number}"
            try:
                with self.metrics.decode_seconds.time():
                    content = _from_base64(upload.content, name) if isinstance(upload.content, str) else upload.content
                    images.append(to_array(content, self.spec, name, max_pixels=self._max_image_pixels))
            except ImageError as error:
                images.append(error)
        return images


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ImageError(f"{name}: expected base64: {error}") from error


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise DeadlineError from error
