"""Classifies the images of a chunk: what every process of every engine does."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer.errors import ImageError, ModelPackageError
from pdeinfer.images.damage import without_frames
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.offline.chunks import Chunk
from pdeinfer.package import zoo
from pdeinfer.package.package import Precision
from pdeinfer.prediction import Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.text import valid

_INFERENCE_FAILED = "inference_failed"  # as the server's code


@dataclass(frozen=True, slots=True)
class Options:
    """How images are classified.

    Attributes:
        model: a bundled model's name, or a package's folder.
        digest: of the package that is meant, as `ModelPackage.digest`.
        precision, device, batch_size, threshold: as the Predictor takes them.
        top_k: the number of classes in a row.
        isolate: whether images are decoded in processes with limits.
    """

    model: str
    digest: str
    precision: Precision = "float32"
    device: str = "auto"
    top_k: int = 5
    threshold: float = 0.0
    batch_size: int | None = None
    isolate: bool = False


class ChunkClassifier:
    """Classifies chunks, on one thread, in a process that does nothing else.

    Raises:
        ModelPackageError: the package is not the one that is meant, or is damaged.
        DeviceError: the device cannot be used.
    """

    def __init__(self, options: Options) -> None:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no image, and those that matter are errors
        package = zoo.load(options.model)
        if package.digest != options.digest:
            raise ModelPackageError(f"{options.model} has changed since the start: restore it, or start again")
        self._options = options
        self._predictor = Predictor(
            package,
            precision=options.precision,
            device=options.device,
            threads=1,
            batch_size=options.batch_size,
            threshold=options.threshold,
        )
        self._batch_size = self._predictor.info().batch_size
        self._decoders = IsolatedDecoders()
        decode = self._decoders.to_array if options.isolate else self._decoders.to_array_where_needed
        self._decode = partial(decode, spec=self._predictor.info().input)

    def classify(self, chunk: Chunk) -> bytes:
        """Return a line of JSON for each image of a chunk.

        Raises:
            ClassifyError: a file of images has changed since it was listed.
            OSError: the system failed.
        """
        images = ((name, self._to_array(name, image)) for name, image in chunk.read())
        lines: list[str] = []
        size = min(self._batch_size, chunk.images)  # `islice` takes no number above sys.maxsize
        while batch := list(islice(images, size)):  # of pixels: the files may be much larger
            lines += [json.dumps(row, allow_nan=False) + "\n" for row in self._rows(batch)]
        return "".join(lines).encode("ascii")

    def close(self) -> None:
        """End the processes that decode images."""
        self._decoders.close()

    def _rows(self, images: list[tuple[str, NDArray[np.uint8] | ImageError]]) -> Iterator[dict[str, Any]]:
        pixels = [image for _, image in images if not isinstance(image, ImageError)]
        scores: Iterator[NDArray[np.float32]] = iter(self._predictor.predict_proba(np.stack(pixels)) if pixels else ())
        for name, image in images:
            if isinstance(image, ImageError):
                yield _failed(name, image.code, str(image))
                continue
            try:
                yield _classified(name, self._predictor.rank(next(scores), self._options.top_k))
            except ModelPackageError as error:
                yield _failed(name, _INFERENCE_FAILED, f"{name}: {error}")

    def _to_array(self, name: str, image: str | bytes | ImageError) -> NDArray[np.uint8] | ImageError:
        if isinstance(image, ImageError):
            return image
        try:
            return self._decode(image, name=name if isinstance(image, bytes) else None)
        except ImageError as error:
            return without_frames(error)


def _classified(name: str, prediction: Prediction) -> dict[str, Any]:
    return {
        "source": valid(name),
        "label": prediction.label,
        "score": prediction.score,
        "top_labels": [entry.label for entry in prediction.top],
        "top_scores": [entry.score for entry in prediction.top],
        "error_code": None,
        "error": None,
    }


def _failed(name: str, code: str, message: str) -> dict[str, Any]:
    empty = dict.fromkeys(("label", "score", "top_labels", "top_scores"))
    return {"source": valid(name), **empty, "error_code": code, "error": valid(message)}
