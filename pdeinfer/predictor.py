"""The Predictor: images in, labels and probabilities out."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pdeinfer.errors import ImageError, ModelPackageError, PredictorClosedError
from pdeinfer.images.convert import ImageLike, image_files, to_array
from pdeinfer.package.package import INPUT_NAME, MODEL_FILES, OUTPUT_NAME, ModelPackage, Precision
from pdeinfer.package.zoo import DEFAULT_MODEL, load
from pdeinfer.prediction import ClassScore, Prediction, PredictorInfo
from pdeinfer.runtime.session import Session, create_session
from pdeinfer.version import __version__


class Predictor:
    """Classify images with a model package; safe to use from many threads at once.

    Args:
        model: a bundled model's name, a package's folder, or a `ModelPackage`.
        precision: "float32" (on CUDA too, not TF32), or "half" or "int8" where the package has such a file.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where it works, else the CPU.
        threads: CPU threads of one prediction; by default as many CPUs as this process may use.
        batch_size: the most images in one run of the network.

    Raises:
        ModelNotFoundError: no bundled model and no folder of that name.
        ModelPackageError: the package is damaged, lacks the precision, or its network does not fit its card.
        DeviceError: the device is unknown or cannot be used.
        MissingDependencyError: ONNX Runtime is not installed.
        TypeError, ValueError: `threads` or `batch_size` is not a positive integer; or the precision is unknown.
    """

    def __init__(
        self,
        model: str | Path | ModelPackage = DEFAULT_MODEL,
        *,
        precision: Precision = "float32",
        device: str = "auto",
        threads: int | None = None,
        batch_size: int = 32,
    ) -> None:
        self._batch_size = _positive_int("batch_size", batch_size)
        if threads is not None:
            threads = _positive_int("threads", threads)
        package = model if isinstance(model, ModelPackage) else load(model)
        session = create_session(package.read_model(precision), device, threads)
        _check_interface(session, package, precision)
        self._package = package
        self._precision = precision
        self._labels = package.card.preset.labels
        self._input = package.card.preset.input
        self._session: Session | None = session

    @overload
    def predict(self, images: ImageLike, top_k: int = 5) -> Prediction: ...
    @overload
    def predict(self, images: list[Any] | tuple[Any, ...], top_k: int = 5) -> list[Prediction]: ...
    def predict(self, images: ImageLike | list[Any] | tuple[Any, ...], top_k: int = 5) -> Prediction | list[Prediction]:
        """Classify one image, or a list or tuple of images.

        Args:
            images: as `pdeinfer.images.convert.to_array` takes them; images of another size or mode are converted.
            top_k: how many classes to name; more than the model has is all of them.

        Returns:
            One Prediction for one image, a list for a list.

        Raises:
            ImageError: an input is not an image; the message names it.
            TypeError, ValueError: `top_k` is not a positive integer.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        session = self._open_session()
        if not isinstance(images, list | tuple):
            return self._classify(session, [to_array(images, self._input)], top_k)[0]
        return list(self._classify_batches(session, images, top_k, count=len(images)))

    def predict_iter(
        self, images: Iterable[ImageLike] | str | os.PathLike[str], top_k: int = 5
    ) -> Iterator[Prediction]:
        """Classify the images of an iterable, or of a folder, in batches and lazily.

        At most `batch_size` images are held at a time. Where an image cannot be read, the predictions of those before
        it come first.

        Args:
            images: any iterable of images, or the path of a folder: the files in it (not in folders below) that are
                named as images, sorted by name.
            top_k: as in `predict`.

        Raises:
            ImageError: there is no such folder or no image in it; while iterating, an input is not an image.
            TypeError, ValueError: `top_k` is not a positive integer, or `images` is one image.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        session = self._open_session()
        if isinstance(images, str | os.PathLike):
            images = image_files(images)
        elif _is_one_image(images):
            raise TypeError(
                "predict_iter takes a folder or an iterable of images, such as a list or an array (N, H, W, C), "
                f"and this is one image ({type(images).__name__}): predict takes it"
            )
        return self._classify_batches(session, images, top_k)

    def predict_proba(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of every class for images that already have the network's shape.

        Args:
            images: uint8 (N, H, W, C), with the height, width and channels of `info().input`; N may be 0.

        Returns:
            float32 (N, classes), each row with the sum 1.

        Raises:
            ImageError: another type, dtype or shape.
            PredictorClosedError: after `close()`.
        """
        spec = self._input
        shape = (spec.height, spec.width, spec.channels)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
            found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ImageError(f"expected a uint8 array of shape (N, {', '.join(map(str, shape))}), got {found}")
        return self._run(self._open_session(), images)

    def rank(self, scores: NDArray[np.float32], top_k: int = 5) -> Prediction:
        """Return the best `top_k` classes of one row of probabilities: float32 (classes,), as from `predict_proba`."""
        order = np.argsort(-scores, kind="stable")[:top_k]
        top = tuple(ClassScore(self._labels[index], int(index), float(scores[index])) for index in order)
        return Prediction(top[0].label, top[0].index, top[0].score, top)

    def info(self) -> PredictorInfo:
        """Return what this Predictor runs, and on which device.

        Raises:
            PredictorClosedError: after `close()`.
        """
        session, card = self._open_session(), self._package.card
        return PredictorInfo(
            model=card.preset.name,
            path=self._package.path,
            labels=self._labels,
            input=self._input,
            parameters=card.parameters,
            precision=self._precision,
            device=session.device,
            provider=session.provider,
            threads=session.threads,
            batch_size=self._batch_size,
            pde_layers=session.pde_layers,
            versions={
                "pdeinfer": __version__,
                "package": card.pdeinfer_version,
                "onnxruntime": session.version,
                "numpy": np.__version__,
            },
        )

    def close(self) -> None:
        """Release the network; what is under way, an iteration too, ends normally. Closing twice is allowed."""
        self._session = None

    def __enter__(self) -> Self:
        self._open_session()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_session(self) -> Session:
        session = self._session
        if session is None:
            raise PredictorClosedError("this Predictor is closed")
        return session

    def _classify_batches(
        self, session: Session, images: Iterable[ImageLike], top_k: int, count: int | None = None
    ) -> Iterator[Prediction]:
        of_count = "" if count is None else f" of {count}"
        batch: list[NDArray[np.uint8]] = []
        for number, image in enumerate(images, 1):
            try:
                batch.append(to_array(image, self._input, f"image {number}{of_count}"))
            except ImageError:
                yield from self._classify(session, batch, top_k)
                raise
            if len(batch) == self._batch_size:
                yield from self._classify(session, batch, top_k)
                batch = []
        yield from self._classify(session, batch, top_k)

    def _classify(self, session: Session, images: list[NDArray[np.uint8]], top_k: int) -> list[Prediction]:
        return [self.rank(scores, top_k) for scores in self._run(session, np.stack(images))] if images else []

    def _run(self, session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = np.empty((len(images), len(self._labels)), np.float32)
        for start in range(0, len(images), self._batch_size):
            batch = slice(start, start + self._batch_size)
            result[batch] = session.run(OUTPUT_NAME, {INPUT_NAME: images[batch]})
        return result


def _check_interface(session: Session, package: ModelPackage, precision: Precision) -> None:
    """Raise ModelPackageError unless the network's input and output are what the card says."""
    spec, labels = package.card.preset.input, package.card.preset.labels
    expected_input = f"{INPUT_NAME}: tensor(uint8) [batch, {spec.height}, {spec.width}, {spec.channels}]"
    expected_output = f"{OUTPUT_NAME}: tensor(float) [batch, {len(labels)}]"
    for what, expected, found in (
        ("input", expected_input, session.inputs),
        ("output", expected_output, session.outputs),
    ):
        if found != [expected]:
            raise ModelPackageError(
                f"{package.path / MODEL_FILES[precision]} does not fit its card: "
                f"{what} {expected} expected, {'; '.join(found)} found"
            )


def _is_one_image(images: object) -> bool:
    """Whether iterating over it would give rows, bytes or lines instead of images."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, bytes | bytearray | memoryview | Image) or hasattr(images, "read")


def _positive_int(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return int(value)
