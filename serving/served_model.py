"""One version of a model: loaded, warm, and classifying the images of concurrent requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, Prediction, Predictor
from pdeinfer.images import to_array
from pdeinfer.package import ModelPackage
from serving.batching import Batcher
from serving.errors import DeadlineError, InferenceError
from serving.metrics import ModelMetrics
from serving.settings import Settings
from serving.threads import Threads
from serving.uploads import Upload

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
        # What the first run sets up, no request waits for.
        self.predictor.predict_proba(np.zeros((1, self.spec.height, self.spec.width, self.spec.channels), np.uint8))

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
                outcomes = await self._batcher.run(pixels)
        rows = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        if len(rows) < len(outcomes):
            raise InferenceError
        return np.stack(rows)

    async def classify(
        self, uploads: Sequence[Upload], top_k: int, deadline: float
    ) -> list[Prediction | ImageError | InferenceError]:
        """Return one prediction per image, in order, or why there is none.

        Raises:
            QueueFullError, DeadlineError: there is no room or no time for them.
        """
        with self._batcher.admit(len(uploads)):
            async with _until(deadline):
                decoded = await self._decode_all(uploads)
                arrays = [image for image in decoded if not isinstance(image, ImageError)]
                outcomes = iter(await self._batcher.run(np.stack(arrays)) if arrays else ())
        results: list[Prediction | ImageError | InferenceError] = []
        for image in decoded:
            outcome = image if isinstance(image, ImageError) else next(outcomes)
            if isinstance(outcome, np.ndarray):
                results.append(self.predictor.rank(outcome, top_k))
            else:
                results.append(outcome if isinstance(outcome, ImageError) else InferenceError())
        return results

    async def _decode_all(self, uploads: Sequence[Upload]) -> list[NDArray[np.uint8] | ImageError]:
        chunks = await asyncio.gather(
            *(
                self._threads.run(self._decode, uploads[start : start + DECODE_CHUNK], start + 1)
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
                    images.append(to_array(upload.content, self.spec, name, max_pixels=self._max_image_pixels))
            except ImageError as error:
                images.append(error)
        return images


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise DeadlineError from error
