"""The Predictor: images in, labels and probabilities out."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdeinfer.errors import DeviceError, ImageError, ModelPackageError, PredictorClosedError
from pdeinfer.images.batches import BatchDecoder, Channels, Decoded, is_one_image, path_of
from pdeinfer.images.convert import ImageLike
from pdeinfer.images.damage import AnyPath, without_frames
from pdeinfer.images.files import find_image_files
from pdeinfer.package import zoo
from pdeinfer.package.package import FEATURES_NAME, INPUT_NAME, MODEL_FILES, OUTPUT_NAME, ModelPackage, Precision
from pdeinfer.prediction import ClassScore, Prediction, PredictorInfo
from pdeinfer.runtime.cpus import MAX_THREADS
from pdeinfer.runtime.session import Session, TensorType, create_session
from pdeinfer.version import __version__

PredictionOrError: TypeAlias = Prediction | ImageError | ModelPackageError


class Predictor:
    """Classify images with a model package. Many threads may share one Predictor, but not one file object as an image.

    Processes can share it too: a Predictor is pickled as its package's name or path and its options, and the process
    that receives it loads the package again; it must be the same package. `multiprocessing` with the start method
    "spawn", joblib and Spark use this. After `os.fork()` the child loads the package again at its first prediction.
    Prefer "spawn" or "forkserver": forking a process that has threads is unsafe in general, and CUDA does not survive
    it.

    Args:
        model: a bundled model's name, a package's folder (`pdeinfer.package.zoo` says how they are told apart), or a
            `ModelPackage`.
        precision: "float32" (on CUDA too, not TF32), or "int8" if the package has that file.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA if it works, else the CPU.
        threads: CPU threads of one prediction; by default, the CPUs that this process may use.
        batch_size: the most images in one run of the network; by default 32 on a CPU and 256 on CUDA.
        gpu_mem_limit: the most bytes of a CUDA device's memory for the network's weights and values; by default, no
            limit. The CPU ignores it.
        channels: the order of the colours in arrays: "rgb", or "bgr" as OpenCV has it. Other images have an order of
            their own.
        threshold: the least score, 0..1, of an answer: below it, a prediction's label is None.

    Raises:
        ModelNotFoundError: `model` is neither a bundled model nor a package's folder.
        ModelPackageError: the package is damaged, lacks the precision, or its network does not match its card.
        DeviceError: the device is unknown or cannot be used.
        MissingDependencyError: ONNX Runtime is missing or broken.
        TypeError, ValueError: `model` is neither a name, a path nor a `ModelPackage`, `threads`, `batch_size` or
            `gpu_mem_limit` is not a positive integer, `threads` is more than 1024, `threshold` is not a number from 0
            to 1, or `precision` or `channels` is unknown.
    """

    def __init__(  # noqa: PLR0913  # options by keyword, each on its own
        self,
        model: str | Path | ModelPackage = zoo.DEFAULT_MODEL,
        *,
        precision: Precision = "float32",
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
        gpu_mem_limit: int | None = None,
        channels: Channels = "rgb",
        threshold: float = 0.0,
    ) -> None:
        if channels not in get_args(Channels):
            raise ValueError(f"channels must be one of {get_args(Channels)}, not {channels!r}")
        self._threshold = _probability("threshold", threshold)
        self._threads = None if threads is None else _positive_int("threads", threads, MAX_THREADS)
        self._batch_size = None if batch_size is None else _positive_int("batch_size", batch_size)
        self._gpu_mem_limit = None if gpu_mem_limit is None else _positive_int("gpu_mem_limit", gpu_mem_limit)
        self._package = model if isinstance(model, ModelPackage) else zoo.load(model)
        self._precision = precision
        self._device = device
        self._labels = self._package.card.preset.labels
        self._input = self._package.card.preset.input
        self._decoder = BatchDecoder(self._input, channels)
        self._session: Session | None = self._load_session()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model's classes: an index of a prediction is a place in it."""
        return self._labels

    @property
    def num_features(self) -> int | None:
        """The number of features that `embed` returns for an image; None if the network does not give them.

        Raises:
            PredictorClosedError: after `close()`.
        """
        features = self._open_session().outputs.get(FEATURES_NAME)
        return None if features is None else features.shape[1]

    def __repr__(self) -> str:
        """Return the model, its input and classes, the precision and the device or, after `close()`, "closed"."""
        spec, session = self._input, self._session
        state = "closed" if session is None else session.device
        return (
            f"<Predictor {self._package.card.preset.name}: {spec.height}x{spec.width}x{spec.channels} -> "
            f"{len(self._labels)} classes, {self._precision}, {state}>"
        )

    # An image is an iterable too: mypy takes the first overload that fits. The type of an array does not tell whether
    # that is one image or several.
    @overload
    def predict(self, images: NDArray[Any], top_k: int = 5) -> Any: ...
    @overload
    def predict(self, images: ImageLike, top_k: int = 5) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[Any], top_k: int = 5) -> list[Prediction]: ...
    def predict(self, images: Any, top_k: int = 5) -> Prediction | list[Prediction]:
        """Classify one image, or several.

        Args:
            images: one image, as `pdeinfer.images.convert.to_array` takes it; or several: any iterable of such images,
                an array of paths, or an array (N, H, W, C). Images of another size or mode are converted.
            top_k: how many classes to return, at most all of the model's.

        Returns:
            A Prediction for one image, a list of them for several.

        Raises:
            ImageError: an input is not an image; the message names it.
            ModelPackageError: the network computes NaN or infinity for an image.
            TypeError, ValueError: `top_k` is not a positive integer.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        session = self._open_session()
        if is_one_image(images):
            (scores,) = self._run(session, self._decoder.to_array(images)[np.newaxis])
            return self._rank(scores, top_k, path_of(images))
        return list(self._predict_batches(session, images, top_k))

    @overload
    def predict_iter(
        self,
        images: Iterable[ImageLike] | AnyPath,
        top_k: int = 5,
        *,
        on_error: Literal["raise"] = "raise",
    ) -> Iterator[Prediction]: ...
    @overload
    def predict_iter(
        self, images: Iterable[ImageLike] | AnyPath, top_k: int = 5, *, on_error: Literal["yield"]
    ) -> Iterator[PredictionOrError]: ...
    def predict_iter(
        self,
        images: Iterable[ImageLike] | AnyPath,
        top_k: int = 5,
        *,
        on_error: Literal["raise", "yield"] = "raise",
    ) -> Iterator[Prediction] | Iterator[PredictionOrError]:
        """Classify the images of an iterable, or of a folder, lazily and in batches.

        At most `info().batch_size` images are in memory at a time.

        Args:
            images: any iterable of images, an array (N, H, W, C), or the path of a folder: the image files
                that `pdeinfer.images.files.find_image_files` finds in it, sorted by name.
            top_k: as in `predict`.
            on_error: what happens if an image cannot be read, or the network computes NaN or infinity for it. "raise":
                the predictions of the images before it come first, then its error is raised. "yield": the error takes
                the place of its prediction, and the images after it follow.

        Raises:
            ImageError: the folder does not exist or has no image; while iterating, with "raise", an input is not an
                image.
            ModelPackageError: while iterating, with "raise", the network computes NaN or infinity for an image.
            TypeError, ValueError: `top_k` is not a positive integer, `on_error` is unknown, or `images` is one image.
            PredictorClosedError: after `close()`.
        """
        top_k = _positive_int("top_k", top_k)
        if on_error not in ("raise", "yield"):
            raise ValueError(f"on_error must be 'raise' or 'yield', not {on_error!r}")
        session = self._open_session()
        if isinstance(images, str | os.PathLike):
            images = find_image_files(images).images
        elif is_one_image(images):
            raise TypeError(
                "predict_iter takes a folder or an iterable of images, such as a list or an array (N, H, W, C), "
                f"but got one image or no iterable ({type(images).__name__}); predict takes one image"
            )
        if on_error == "yield":
            return self._classify_batches(session, images, top_k)
        return self._predict_batches(session, images, top_k)

    def predict_proba(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of every class for images that already have the network's shape.

        Args:
            images: uint8 (N, H, W, C), with the height, width and channels of `info().input`, the colours in the
                Predictor's order; N may be 0.

        Returns:
            float32 (N, classes); each row sums to 1.

        Raises:
            ImageError: `images` has another type, dtype or shape.
            DeviceError: the CUDA device fails.
            PredictorClosedError: after `close()`.
        """
        shape = (self._input.height, self._input.width, self._input.channels)
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
            found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ImageError(f"expected a uint8 array of shape (N, {', '.join(map(str, shape))}), got {found}")
        return self._run(self._open_session(), self._decoder.to_rgb(images))

    def embed(self, images: Any) -> NDArray[np.float32]:
        """Return the features of images: what the network's last layer takes to tell the classes apart.

        Similar images have similar features: search, cluster or visualise with them, or train another classifier.

        Args:
            images: one image or several, as in `predict`.

        Returns:
            float32 (N, features); one image gives one row.

        Raises:
            ImageError: an input is not an image; the message names it.
            ModelPackageError: the package was made by a version whose networks had no such output.
            PredictorClosedError: after `close()`.
        """
        session = self._open_session()
        if self.num_features is None:
            raise ModelPackageError(
                f"{self._package.path}: its network has no output {FEATURES_NAME!r}, which pdeinfer "
                f"{self._package.card.pdeinfer_version} did not write: export it again"
            )
        if is_one_image(images):
            images = [images]
        batches = self._decoder.stack(images, session.batch_size)
        rows = (session.run(FEATURES_NAME, {INPUT_NAME: batch}) for batch in batches)
        return np.concatenate([np.empty((0, self.num_features), np.float32), *rows])

    def rank(self, scores: ArrayLike, top_k: int = 5) -> Prediction:
        """Return the `top_k` most probable classes of one image, as `predict` does.

        Args:
            scores: (classes,), a row of what `predict_proba` returns.
            top_k: as in `predict`.

        Raises:
            ModelPackageError: a score is NaN or infinite: the network is of no use for this image.
            ValueError: `scores` is not one number per class.
            TypeError, ValueError: `top_k` is not a positive integer.
        """
        top_k = _positive_int("top_k", top_k)
        try:
            with np.errstate(over="ignore"):  # to infinity
                scores = np.asarray(scores, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"scores must be {len(self._labels)} numbers, not {type(scores).__name__}") from error
        if scores.shape != (len(self._labels),):
            raise ValueError(f"scores must have the shape ({len(self._labels)},), not {scores.shape}")
        return self._rank(scores, top_k, None)

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
            batch_size=session.batch_size,
            pde_layers=session.pde_layers,
            cuda_graphs=session.cuda_graphs,
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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the package's name or path and the options, not the network."""
        if self._session is None:
            raise PredictorClosedError("this Predictor is closed and cannot be pickled or copied")
        return {**vars(self), "_session": None, "_package": (zoo.reference_to(self._package), self._package.digest)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the package again.

        Raises:
            ModelNotFoundError, ModelPackageError: it is missing, damaged, or not the one that was pickled.
            DeviceError: the device cannot be used.
        """
        model, digest = state["_package"]
        package = zoo.load(model)
        if package.digest != digest:
            raise ModelPackageError(
                f"{model} is not the package that was pickled: it was replaced since, or differs here"
            )
        vars(self).update(state, _package=package)
        self._session = self._load_session()

    def _load_session(self) -> Session:
        model = self._package.read_model(self._precision)
        try:
            session = create_session(
                model,
                self._device,
                self._threads,
                batch_size=self._batch_size,
                gpu_mem_limit=self._gpu_mem_limit,
            )
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

    def _predict_batches(self, session: Session, images: Iterable[ImageLike], top_k: int) -> Iterator[Prediction]:
        """Yield the predictions of the images, or raise the first error."""
        for outcome in self._classify_batches(session, images, top_k, ends_at_error=True):
            if not isinstance(outcome, Prediction):
                raise outcome
            yield outcome

    def _classify_batches(
        self, session: Session, images: Iterable[ImageLike], top_k: int, *, ends_at_error: bool = False
    ) -> Iterator[PredictionOrError]:
        """Yield a prediction or an error for each image."""
        for batch in self._decoder.decode(images, session.batch_size, ends_at_error=ends_at_error):
            yield from self._classify(session, batch, top_k)

    def _classify(self, session: Session, batch: list[Decoded], top_k: int) -> list[PredictionOrError]:
        pixels = [image for image, _ in batch if not isinstance(image, ImageError)]
        scores = iter(self._run(session, np.stack(pixels))) if pixels else iter(())
        outcomes: list[PredictionOrError] = []
        for image, source in batch:
            try:
                outcomes.append(image if isinstance(image, ImageError) else self._rank(next(scores), top_k, source))
            except ModelPackageError as error:
                outcomes.append(without_frames(error))
        return outcomes

    def _rank(self, scores: NDArray[np.float32], top_k: int, source: str | None) -> Prediction:
        if not np.isfinite(scores).all():
            of_image = f" for {source}" if source else ""
            raise ModelPackageError(f"the network {self._package.card.preset.name} computed NaN or infinity{of_image}")
        order = (-scores).argsort(kind="stable")[:top_k]
        best_first = zip(order.tolist(), scores[order].tolist(), strict=True)
        top = tuple(ClassScore(self._labels[index], index, score) for index, score in best_first)
        best = top[0]
        if best.score < self._threshold:
            return Prediction(None, None, best.score, top, source)
        return Prediction(best.label, best.index, best.score, top, source)

    def _run(self, session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = np.empty((len(images), len(self._labels)), np.float32)
        for start in range(0, len(images), session.batch_size):
            batch = slice(start, start + session.batch_size)
            result[batch] = session.run(OUTPUT_NAME, {INPUT_NAME: images[batch]})
        return result


def _check_interface(session: Session, package: ModelPackage, precision: Precision) -> None:
    """Raise ModelPackageError unless the network has the input and output that the card describes."""
    spec, labels = package.card.preset.input, package.card.preset.labels
    image = TensorType("tensor(uint8)", (None, spec.height, spec.width, spec.channels))
    probabilities = TensorType("tensor(float)", (None, len(labels)))
    outputs = session.outputs
    match outputs.get(FEATURES_NAME):
        case ("tensor(float)", (None, int(size))) if size > 0:
            del outputs[FEATURES_NAME]  # may be missing
    for what, expected, found in (
        ("input", {INPUT_NAME: image}, session.inputs),
        ("output", {OUTPUT_NAME: probabilities}, outputs),
    ):
        if found != expected:
            raise ModelPackageError(
                f"{package.path / MODEL_FILES[precision]} does not match its card: "
                f"expected the {what} {_listed(expected)}, got {_listed(found)}"
            )


def _listed(types: dict[str, TensorType]) -> str:
    return "; ".join(f"{name}: {kind}" for name, kind in types.items())


def _probability(name: str, value: object) -> float:
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number from 0 to 1, not {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _positive_int(name: str, value: object, most: float = math.inf) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not {value}")
    return int(value)
