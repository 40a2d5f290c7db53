"""The Predictor: images in, labels and probabilities out."""

import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pdeinfer.errors import DeviceError, ImageError, ModelPackageError, PredictorClosedError
from pdeinfer.images.convert import ImageLike, to_array
from pdeinfer.images.files import find_image_files
from pdeinfer.package import zoo
from pdeinfer.package.package import INPUT_NAME, MODEL_FILES, OUTPUT_NAME, ModelPackage, Precision
from pdeinfer.prediction import ClassScore, Prediction, PredictorInfo
from pdeinfer.runtime.session import Session, create_session
from pdeinfer.version import __version__


class Predictor:
    """Classify images with a model package. Many threads may share one Predictor.

    Processes can share it too: a Predictor is pickled as its package's name or path and its options, and the process
    that receives it loads the package again. `multiprocessing` with the start method "spawn", joblib and Spark use
    this. After `os.fork()` the child loads the package again at its first prediction. Prefer "spawn" or "forkserver":
    forking a process that has threads is unsafe in general, and CUDA does not survive it.

    Args:
        model: a bundled model's name, a package's folder (`pdeinfer.package.zoo` says how they are told apart), or a
            `ModelPackage`.
        precision: "float32" (on CUDA too, not TF32), or "int8" if the package has that file.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA if it works, else the CPU.
        threads: CPU threads of one prediction; by default, the CPUs that this process may use.
        batch_size: the most images in one run of the network.

    Raises:
        ModelNotFoundError: `model` is neither a bundled model nor a package's folder.
        ModelPackageError: the package is damaged, lacks the precision, or its network does not match its card.
        DeviceError: the device is unknown or cannot be used.
        MissingDependencyError: ONNX Runtime is missing or broken.
        TypeError, ValueError: `threads` or `batch_size` is not a positive integer, or `precision` is unknown.
    """

    def __init__(
        self,
        model: str | Path | ModelPackage = zoo.DEFAULT_MODEL,
        *,
        precision: Precision = "float32",
        device: str = "auto",
        threads: int | None = None,
        batch_size: int = 32,
    ) -> None:
        self._batch_size = _positive_int("batch_size", batch_size)
        self._threads = None if threads is None else _positive_int("threads", threads)
        self._package = model if isinstance(model, ModelPackage) else zoo.load(model)
        self._precision = precision
        self._device = device
        self._labels = self._package.card.preset.labels
        self._input = self._package.card.preset.input
        self._session: Session | None = self._load_session()

    # An image is an iterable too: mypy takes the first overload that fits. An array (N, H, W, C) gives a list.
    @overload
    def predict(self, images: ImageLike, top_k: int = 5) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[Any], top_k: int = 5) -> list[Prediction]: ...
    def predict(self, images: Any, top_k: int = 5) -> Prediction | list[Prediction]:
        """Classify one image, or several.

        Args:
            images: one image, as `pdeinfer.images.convert.to_array` takes it; or several: any iterable of such images,
                or an array (N, H, W, C). Images of another size or mode are converted.
            top_k: how many classes to return, at most all of the model's.

        Returns:
            A Prediction for one image, a list of them for several.

        Raises:
            ImageError: an input is not an image; the message names it.
            TypeError, ValueError: `top_k` is not a positive integer.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        session = self._open_session()
        if _is_one_image(images):
            return self._classify(session, [to_array(images, self._input)], top_k)[0]
        count = len(images) if isinstance(images, Sized) else None
        return list(self._classify_batches(session, images, top_k, count))

    def predict_iter(
        self, images: Iterable[ImageLike] | str | os.PathLike[str], top_k: int = 5
    ) -> Iterator[Prediction]:
        """Classify the images of an iterable, or of a folder, lazily and in batches.

        At most `batch_size` images are in memory at a time. If an image cannot be read, the predictions of the images
        before it come first.

        Args:
            images: any iterable of images, an array (N, H, W, C), or the path of a folder: the image files
                that `pdeinfer.images.files.find_image_files` finds in it, sorted by name.
            top_k: as in `predict`.

        Raises:
            ImageError: the folder does not exist or has no image; while iterating, an input is not an image.
            TypeError, ValueError: `top_k` is not a positive integer, or `images` is one image.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        session = self._open_session()
        if isinstance(images, str | os.PathLike):
            images = find_image_files(images).images
        elif _is_one_image(images):
            raise TypeError(
                "predict_iter takes a folder or an iterable of images, such as a list or an array (N, H, W, C), "
                f"but got one image or no iterable ({type(images).__name__}); predict takes one image"
            )
        return self._classify_batches(session, images, top_k)

    def predict_proba(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of every class for images that already have the network's shape.

        Args:
            images: uint8 (N, H, W, C), with the height, width and channels of `info().input`; N may be 0.

        Returns:
            float32 (N, classes); each row sums to 1.

        Raises:
            ImageError: `images` has another type, dtype or shape.
            PredictorClosedError: after `close()`.
        """
        spec = self._input
        shape = (spec.height, spec.width, spec.channels)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
            found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ImageError(f"expected a uint8 array of shape (N, {', '.join(map(str, shape))}), got {found}")
        return self._run(self._open_session(), images)

    def rank(self, scores: NDArray[np.float32], top_k: int = 5) -> Prediction:
        """Return the `top_k` most probable classes of one image.

        Args:
            scores: float32 (classes,), a row of what `predict_proba` returns.
            top_k: as in `predict`.

        Raises:
            ValueError: `scores` is not one number per class.
            TypeError, ValueError: `top_k` is not a positive integer.
        """
        top_k = _positive_int("top_k", top_k)
        if np.shape(scores) != (len(self._labels),):
            raise ValueError(f"scores must have the shape ({len(self._labels)},), not {np.shape(scores)}")
        order = np.argsort(-scores, kind="stable")[:top_k]
        top = tuple(ClassScore(self._labels[index], int(index), float(scores[index])) for index in order)
        return Prediction(top[0].label, top[0].index, top[0].score, top)

    def info(self) -> PredictorInfo:
        """Describe the model, the device and the versions in use.

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
        """Release the network. Calls and iterations in progress finish normally; closing twice is allowed."""
        self._session = None

    def __enter__(self) -> Self:
        self._open_session()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the package's name or path and the options, not the network."""
        if self._session is None:
            raise PredictorClosedError("this Predictor is closed and cannot be pickled or copied")
        model = zoo.spell_package(self._package)
        return _make_predictor, (model, self._precision, self._device, self._threads, self._batch_size)

    def _load_session(self) -> Session:
        model = self._package.read_model(self._precision)
        try:
            session = create_session(model, self._device, self._threads)
        except ModelPackageError as error:
            raise ModelPackageError(f"{self._package.path / MODEL_FILES[self._precision]}: {error}") from error
        _check_interface(session, self._package, self._precision)
        return session

    def _open_session(self) -> Session:
        session = self._session
        if session is None:
            raise PredictorClosedError("this Predictor is closed")
        if session.is_inherited:
            if session.device != "cpu":
                raise DeviceError(
                    f"{session.device} cannot be used after a fork: create the Predictor in the child process, "
                    "or start that process with multiprocessing's start method 'spawn'"
                )
            session = self._session = self._load_session()
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


def _make_predictor(model: str, precision: Precision, device: str, threads: int | None, batch_size: int) -> Predictor:
    """Create the Predictor that was pickled."""
    return Predictor(model, precision=precision, device=device, threads=threads, batch_size=batch_size)


def _check_interface(session: Session, package: ModelPackage, precision: Precision) -> None:
    """Raise ModelPackageError unless the network has the input and output that the card describes."""
    spec, labels = package.card.preset.input, package.card.preset.labels
    expected_input = f"{INPUT_NAME}: tensor(uint8) [batch, {spec.height}, {spec.width}, {spec.channels}]"
    expected_output = f"{OUTPUT_NAME}: tensor(float) [batch, {len(labels)}]"
    for what, expected, found in (
        ("input", expected_input, session.inputs),
        ("output", expected_output, session.outputs),
    ):
        if found != [expected]:
            raise ModelPackageError(
                f"{package.path / MODEL_FILES[precision]} does not match its card: "
                f"expected the {what} {expected}, got {'; '.join(found)}"
            )


def _is_one_image(images: object) -> bool:
    """Return whether `images` is a single image: iterating over it would yield rows, bytes or lines."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image) or hasattr(images, "read"):
        return True
    return not isinstance(images, Iterable)


def _positive_int(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return int(value)
