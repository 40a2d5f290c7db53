"""The served models, and the threads that decode images and classify them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError, ModelCard, ModelNotFoundError, ModelPackageError, Prediction, Predictor, zoo
from pdeinfer.images import to_array
from serving.settings import Settings
from serving.uploads import Upload

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model and its card."""

    card: ModelCard
    predictor: Predictor


class Classifier:
    """Decode and classify images off the event loop, with one pool of threads for all models.

    Args:
        settings: which models, on which device, with which limits.

    Raises:
        ModelNotFoundError: there is no model of a name in the settings, or none at all.
        ModelPackageError: a model's package is damaged, or two have one name.
        DeviceError: the device cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_image_pixels = settings.max_image_pixels
        self.models: dict[str, ServedModel] = {}
        for name in settings.models or zoo.names():
            package = zoo.load(name)
            card = package.card
            if card.preset.name in self.models:
                raise ModelPackageError(f"two of the models to serve have the name {card.preset.name!r}")
            predictor = Predictor(package, device=settings.device, threads=settings.threads)
            self.models[card.preset.name] = ServedModel(card, predictor)
        if not self.models:
            raise ModelNotFoundError("there are no bundled models: name a package folder to serve")
        self.default = next(iter(self.models))
        self.ready = False
        self._pool = ThreadPoolExecutor(self.models[self.default].predictor.info().threads, "classify")

    async def warm_up(self) -> None:
        """Run every model once, so that no request waits for what the first run sets up; then be ready."""
        try:
            for model in self.models.values():
                spec = model.card.preset.input
                blank = np.zeros((1, spec.height, spec.width, spec.channels), np.uint8)
                await self._in_pool(model.predictor.predict_proba, blank)
        except Exception:
            logger.exception("A model failed to warm up: the server stays alive but never gets ready")
        else:
            self.ready = True

    async def classify(
        self, model: ServedModel, uploads: Sequence[Upload], top_k: int
    ) -> list[Prediction | ImageError]:
        """Return one prediction per image, in order, or the error of an image that cannot be classified."""
        decoded = await asyncio.gather(
            *(self._in_pool(self._decode, model, upload, number) for number, upload in enumerate(uploads, 1))
        )
        arrays = [image for image in decoded if not isinstance(image, ImageError)]
        predictions = iter(await self._in_pool(model.predictor.predict, arrays, top_k))
        return [image if isinstance(image, ImageError) else next(predictions) for image in decoded]

    def close(self) -> None:
        """Finish what runs and release the models."""
        self._pool.shutdown()
        for model in self.models.values():
            model.predictor.close()

    def _decode(self, model: ServedModel, upload: Upload, number: int) -> NDArray[np.uint8] | ImageError:
        name = upload.filename or f"image {number}"
        try:
            return to_array(upload.content, model.card.preset.input, name, max_pixels=self._max_image_pixels)
        except ImageError as error:
            return error

    async def _in_pool(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
