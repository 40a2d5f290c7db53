"""One version of a model, loaded and warm, which classifies the images of concurrent requests."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, PdeinferError, Prediction, Predictor
from pdeinfer.package.package import FEATURES_NAME, OUTPUT_NAME, ModelPackage
from pdeinfer.runtime.cpus import available_cpus
from serving.engine.batching import Batcher
from serving.engine.deadline import until
from serving.engine.decoder import Decoder, NamedFile
from serving.engine.inspection import Change, Inspected, ModelInspector
from serving.engine.isolation import Isolation
from serving.engine.threads import Threads
from serving.errors import DeadlineError, InferenceError, NoFeaturesError, OverloadedError
from serving.settings import Settings
from serving.telemetry.metrics import ModelMetrics
from serving.telemetry.tracing import span

logger = logging.getLogger(__name__)

# While both wait, decoding gets a quarter of the time that computing gets: decoded images are computed before many more
# are decoded.
DECODING_WEIGHT = 0.25

# The event loop ranks and encodes itself what takes it a few milliseconds: this many scores of all classes and images.
RANKED_AT_ONCE = 2048

# The longest batch that the event loop computes itself, in a worker that has one CPU.
MAX_INLINE_SECONDS = 0.02

# The result for an image: its classes, or why there are none.
ImageResult: TypeAlias = Prediction | ImageError | InferenceError | DeadlineError
# The features of an image, or why there are none.
Features: TypeAlias = NDArray[np.float32] | ImageError | InferenceError


class ServedModel:
    """One version of a model; after it is replaced or unloaded, it still answers requests that hold it.

    Args:
        package: what to load.
        name: what clients call it.
        version: a number, as text.
        settings: the precision, the device and the limits.
        threads: decode and classify its images.
        isolation: decodes the images that may be costly.

    Raises:
        ModelPackageError: the package is damaged or has no file of the precision.
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        package: ModelPackage,
        name: str,
        version: str,
        settings: Settings,
        threads: Threads,
        isolation: Isolation,
    ) -> None:
        self.name = name
        self.version = version
        self.card = package.card
        self.digest = package.digest
        self.spec = package.card.preset.input
        self.labels = package.card.preset.labels
        max_batch_size, max_delay_ms, max_queue = settings.batching(self.name)
        # Several batches on one thread each are faster than one batch on several threads.
        self.predictor = Predictor(
            package,
            precision=settings.precision_of(self.name),
            device=settings.device,
            threads=1,
            batch_size=max_batch_size,
            threshold=settings.threshold_of(self.name),
            gpu_mem_limit=settings.gpu_mem_limit,
        )
        self.info = self.predictor.info()
        is_on_cpu = self.info.device == "cpu"
        features = self.predictor.num_features
        # The size of every output for one image, by name.
        self.outputs = {OUTPUT_NAME: len(self.labels)} | ({} if features is None else {FEATURES_NAME: features})
        self.metrics = ModelMetrics(self.name, version)
        self._inspecting = threads.share()
        self._ranking = threads.share()
        self._inspector = ModelInspector(name, package, self.predictor)
        self._max_batch_size = min(self.info.batch_size, max_queue)
        self.max_queue = max_queue
        self._admitted = 0
        self._decoder = Decoder(
            self.spec, settings.max_image_pixels, threads.share(DECODING_WEIGHT), isolation, self.metrics
        )
        # The thread that waits for a GPU is none of those that decode.
        computing = threads.share() if is_on_cpu else Threads(1)
        self._network, self._embedding = (
            Batcher(
                _Network(self.name, output, self.predictor, self.metrics).compute,
                computing,
                self.metrics.compute_queue_seconds,
                max_batch_size=self._max_batch_size,
                max_batches=threads.count if is_on_cpu else 1,
                max_delay=max_delay_ms / 1000,
                max_inline=MAX_INLINE_SECONDS if is_on_cpu and _has_one_cpu(threads, settings) else 0.0,
            )
            for output in (OUTPUT_NAME, FEATURES_NAME)
        )
        for images in (1, self._max_batch_size):  # no request should wait for what the first run of a size sets up
            blank = np.zeros((images, self.spec.height, self.spec.width, self.spec.channels), np.uint8)
            self.predictor.predict_proba(blank)

    @property
    def admitted(self) -> int:
        """How many images are being decoded, waiting or computed."""
        return self._admitted

    @property
    def is_full(self) -> bool:
        """Whether the queue has no room for another image."""
        return self._admitted >= self.max_queue

    @property
    def execution(self) -> str:
        """What computes the network, for the log: "cuda:0, CUDAExecutionProvider, fused PDE layers, CUDA graphs"."""
        info = self.info
        graphs = "" if info.device == "cpu" else f", {'' if info.cuda_graphs else 'no '}CUDA graphs"
        return f"{info.device}, {info.provider}, {info.pde_layers} PDE layers{graphs}"

    async def infer(
        self, images: NDArray[np.uint8] | Sequence[bytes], outputs: Sequence[str], deadline: float
    ) -> dict[str, NDArray[np.float32]]:
        """Return outputs of the network, float32 (N, ...), by name.

        If cancelled, images that are still waiting are not computed.

        Args:
            images: uint8 (N, H, W, C) in the network's shape, which must not change afterwards; or the files of N
                images. N is at least 1.
            outputs: keys of the attribute `outputs`.
            deadline: when to give up, on the event loop's clock.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the images were not classified in time.
            ImageError: one of them cannot be decoded.
            InferenceError: the network failed on one of them.
        """
        with self._admit(len(images)):
            return await until(deadline, self._infer(images, outputs))

    async def _infer(
        self, images: NDArray[np.uint8] | Sequence[bytes], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        if isinstance(images, np.ndarray):
            pixels = list(images)
        else:
            with span("decode"):
                decoded = await self._decoder.run([(f"image {number}", file) for number, file in enumerate(images, 1)])
            pixels = [_succeeded(image) for image in decoded]
        found = {}
        for name in outputs:
            network = self._embedding if name == FEATURES_NAME else self._network
            with span("compute", {"model": self.name, "images": len(pixels)}):
                rows = await network.run(pixels)
            found[name] = np.stack([_succeeded(row) for row in rows])
        return found

    async def classify(self, files: Sequence[NamedFile], top_k: int, deadline: float) -> list[ImageResult]:
        """Return the prediction or the error of every image, in order.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the images were not classified in time.
        """
        with self._admit(len(files)):
            return await until(deadline, self._classify(files, top_k))

    async def embed(self, files: Sequence[NamedFile], deadline: float) -> list[Features]:
        """Return the features, float32 (features,), or the error of every image, in order.

        Raises:
            NoFeaturesError: the model's network has none.
            OverloadedError: the queue is full.
            DeadlineError: the images were not embedded in time.
        """
        if FEATURES_NAME not in self.outputs:
            raise NoFeaturesError(self.name)
        with self._admit(len(files)):
            return await until(deadline, self._run(files, self._embedding))

    async def stream(self, files: Sequence[NamedFile], top_k: int, deadline: float) -> AsyncIterator[list[ImageResult]]:
        """Yield the results of `classify` in parts, in order, each when it is done.

        Raises:
            OverloadedError, DeadlineError: as `classify`, before the first part. Later, a DeadlineError stands for each
                image that was not classified in time.
        """

        async def classify(part: Sequence[NamedFile]) -> list[ImageResult]:
            try:
                return await until(deadline, self._classify(part, top_k))
            except DeadlineError as error:
                return [error] * len(part)

        self._enter(len(files))
        tasks = []
        for start in range(0, len(files), self._max_batch_size):
            part = files[start : start + self._max_batch_size]
            tasks.append(asyncio.create_task(classify(part)))
            # When it is done rather than read: a client that reads slowly must not keep others out.
            tasks[-1].add_done_callback(partial(self._leave, len(part)))
        try:
            for task in tasks:
                outcomes = await task
                if task is tasks[0] and isinstance(outcomes[0], DeadlineError):
                    raise outcomes[0]
                yield outcomes
        finally:
            for task in tasks:
                task.cancel()

    async def inspect(
        self, file: NamedFile, change: Change, encode: Callable[[Inspected], bytes], deadline: float
    ) -> bytes:
        """Classify an image, find what the PDE layers do with it, as they are or changed, and return it encoded.

        Args:
            encode: runs in the thread that computes: only what it returns may wait for other requests.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the image was not inspected in time.
            ImageError: it cannot be decoded.
            InferenceError: the network failed on it.
            NotInspectableError: the model does not allow the change.
        """
        with self._admit(1):
            return await until(deadline, self._inspect(file, change, encode))

    async def _inspect(self, file: NamedFile, change: Change, encode: Callable[[Inspected], bytes]) -> bytes:
        started = time.perf_counter()
        with span("decode"):
            (pixels,) = await self._decoder.run([file])
        if not isinstance(pixels, np.ndarray):
            raise pixels
        decoded = time.perf_counter()

        def compute() -> bytes:
            computing = time.perf_counter()
            self.metrics.compute_queue_seconds.observe(computing - decoded)
            inspected = self._inspector.run(pixels, change)
            seconds = inspected.seconds | {"decode": decoded - started, "queue": computing - decoded}
            return encode(replace(inspected, seconds=seconds))

        with span("inspect", {"model": self.name}):
            try:
                return await self._inspecting.run(compute)
            except (PdeinferError, MemoryError) as error:
                logger.exception("%s could not be inspected", self.name)
                raise InferenceError from error

    async def _classify(self, files: Sequence[NamedFile], top_k: int) -> list[ImageResult]:
        results = await self._run(files, self._network)

        def rank() -> list[ImageResult]:
            return [
                self.predictor.rank(result, top_k) if isinstance(result, np.ndarray) else result for result in results
            ]

        if len(results) * len(self.labels) <= RANKED_AT_ONCE:
            return rank()
        return await self._ranking.run(rank)

    async def _run(
        self,
        files: Sequence[NamedFile],
        network: Batcher[NDArray[np.uint8], NDArray[np.float32] | InferenceError],
    ) -> list[NDArray[np.float32] | ImageError | InferenceError]:
        """Decode images and return what the network computes of each, or its error."""
        with span("decode"):
            decoded = await self._decoder.run(files)
        arrays = [image for image in decoded if isinstance(image, np.ndarray)]
        with span("compute", {"model": self.name, "images": len(arrays)}):
            computed = iter(await network.run(arrays) if arrays else ())
        return [next(computed) if isinstance(image, np.ndarray) else image for image in decoded]

    @contextmanager
    def _admit(self, images: int) -> Iterator[None]:
        """Count images while they are decoded and classified; raise OverloadedError if the queue is full."""
        self._enter(images)
        try:
            yield
        finally:
            self._leave(images)

    def _enter(self, images: int) -> None:
        if self._admitted + images > self.max_queue:
            raise OverloadedError
        self._admitted += images
        self.metrics.admitted_images.inc(images)

    def _leave(self, images: int, _: object = None) -> None:
        self._admitted -= images
        self.metrics.admitted_images.dec(images)


def _succeeded(result: NDArray[Any] | Exception) -> NDArray[Any]:
    """Return a result, or raise it if it is an error."""
    if isinstance(result, Exception):
        raise result
    return result


def _has_one_cpu(threads: Threads, settings: Settings) -> bool:
    """Return whether a worker has one CPU, for its thread and for its event loop."""
    return threads.count == 1 and settings.num_workers >= available_cpus()


class _Network:
    """Computes an output for batches of images.

    It does not refer to its ServedModel, which would form a cycle with its batcher.
    """

    def __init__(self, name: str, output: str, predictor: Predictor, metrics: ModelMetrics) -> None:
        self._name = name
        self._output = output
        self._predictor = predictor
        self._metrics = metrics

    def compute(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32] | InferenceError]:
        """Compute images (H, W, C) together or, if that fails, one by one."""
        self._metrics.batch_images.observe(len(images))
        try:
            with self._metrics.inference_seconds.time():
                pixels, predictor = np.stack(images), self._predictor
                is_embedding = self._output == FEATURES_NAME
                rows = predictor.embed(pixels) if is_embedding else predictor.predict_proba(pixels)
        except Exception:
            logger.exception("%s failed on %d images", self._name, len(images))
            if len(images) == 1:
                return [InferenceError()]
            return [result for image in images for result in self.compute([image])]
        results: list[NDArray[np.float32] | InferenceError] = list(rows)
        not_finite = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if not_finite.size:
            logger.error("%s computed NaN or infinity for %d of %d images", self._name, not_finite.size, len(images))
        for index in not_finite:
            results[index] = InferenceError()
        return results
