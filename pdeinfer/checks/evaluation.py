"""Measures a model package on labelled images, using only its ONNX files."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer.checks.labelled_images import FileImages, LabelledImages, SplitImages
from pdeinfer.checks.metrics import (
    Calibration,
    ClassMetrics,
    accuracy_interval,
    calibration,
    class_metrics,
    confusion_matrix,
    import_metrics,
)
from pdeinfer.datasets import find_labelled_files, find_recorded_folder, holds_files, holds_labels, load_test_split
from pdeinfer.errors import DatasetError, ImageError, ModelPackageError
from pdeinfer.images.files import LeftOut
from pdeinfer.package import zoo
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import Precision
from pdeinfer.predictor import Predictor
from pdeinfer.runtime.session import PdeLayers
from pdeinfer.text import printable

MAX_PRINTED_CLASSES = 20
PRINTED_CONFUSIONS = 10
PASSES = 3
EXAMPLES = 24

_CHUNK_BYTES = 2**26  # of decoded images in memory at a time


@dataclass(frozen=True, slots=True)
class Example:
    """One image: its name and its index in the source, its label, the answer and the probability of the answer."""

    image: str
    index: int
    label: str
    predicted: str
    score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well and how fast a package classifies labelled images.

    Attributes:
        model: the model's name. precision: of the network. labels: of its classes.
        folder: the folder of the images; None for the test images of the model's training.
        confusion: images by true class (rows) and predicted class (columns).
        card_accuracy: the test accuracy that the card states for this precision, 0..1; None if it states none, and for
            other images than the test images of the training.
        accuracy_interval: Wilson's 95 % confidence interval of the accuracy.
        classes: precision and recall for each class.
        calibration: whether probabilities can be trusted.
        mistakes, confident: the wrong and the correct answers of the highest probability, at most `EXAMPLES` each.
        unknown_labels: the folders that are named after no label of the model, with their numbers of files.
        unreadable: the number of images that cannot be read.
        left_out: these, and all other files that were not classified, with the reasons.
        images_per_second: of arrays in batches of `batch_size`: the median of three passes after a warm-up.
        device, threads, pde_layers: as in `pdeinfer.PredictorInfo`.
        source: the images.
    """

    model: str
    precision: Precision
    labels: tuple[str, ...]
    folder: str | None
    confusion: tuple[tuple[int, ...], ...]
    card_accuracy: float | None
    accuracy_interval: tuple[float, float]
    classes: tuple[ClassMetrics, ...]
    calibration: Calibration
    images_per_second: float
    batch_size: int
    device: str
    threads: int
    pde_layers: PdeLayers
    source: LabelledImages
    mistakes: tuple[Example, ...] = ()
    confident: tuple[Example, ...] = ()
    unknown_labels: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def images(self) -> int:
        """The number of classified images."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """The number of correctly classified images."""
        return sum(row[index] for index, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of correctly classified images, 0..1."""
        return self.correct / self.images

    @property
    def equals_card(self) -> bool | None:
        """Whether exactly as many images are correct as the card states; None without `card_accuracy`."""
        if self.card_accuracy is None:
            return None
        return abs(self.accuracy - self.card_accuracy) * self.images < 0.5

    def mutual_confusion(self, first: str, second: str) -> float | None:
        """Return the share of the images of two classes, 0..1, that are mistaken for the other; None if there are none.

        Raises:
            ValueError: a class does not exist.
        """
        i, j = self.labels.index(first), self.labels.index(second)
        images = sum(self.confusion[i]) + sum(self.confusion[j])
        return (self.confusion[i][j] + self.confusion[j][i]) / images if images else None

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; for digits, with the mutual confusion of 3 and 5."""
        values: dict[str, Any] = {
            "images": self.images,
            "accuracy": self.accuracy,
            "equals_card": self.equals_card,
            **{name: _json(getattr(self, name)) for name in self.__dataclass_fields__ if name != "source"},
            "left_out": [{"path": str(each.path), "reason": each.reason} for each in self.left_out],
        }
        if self._are_digits:
            values["mutual_confusion_3_5"] = self.mutual_confusion("3", "5")
        return values

    def __str__(self) -> str:
        """Return accuracy, calibration, speed and the confusion matrix or, for many classes, the worst confusions."""
        lines = [
            f"{self.title}: {self.accuracy:.2%} of {self.images:,} {'test ' if self.folder is None else ''}images "
            f"correct ({self.correct:,}), {self._against_card()}",
            "95% interval of the accuracy: {:.2%} to {:.2%}; ".format(*self.accuracy_interval)
            + f"calibration error (ECE): {self.calibration.error:.3f}",
            f"{self.images_per_second:,.0f} images per second ({self.device}, {self.threads} "
            f"thread{'s' if self.threads > 1 else ''}, batches of {self.batch_size}, "
            f"{self.pde_layers} operators)",
        ]
        if self._are_digits and (share := self.mutual_confusion("3", "5")) is not None:
            lines.append(f"{share:.2%} of the 3s and 5s taken for each other")
        return "\n".join([*lines, *(self._matrix() if len(self.labels) <= MAX_PRINTED_CLASSES else self._pairs())])

    @property
    def title(self) -> str:
        """The model's name, with the precision if it is reduced."""
        return self.model if self.precision == "float32" else f"{self.model} ({self.precision})"

    @property
    def confusions(self) -> list[tuple[int, str, str]]:
        """How often a class is taken for another one: the images, the class and the answer, most frequent first."""
        pairs = (
            (count, self.labels[true], self.labels[predicted])
            for true, row in enumerate(self.confusion)
            for predicted, count in enumerate(row)
            if count and true != predicted
        )
        return sorted(pairs, key=lambda pair: -pair[0])

    @property
    def _are_digits(self) -> bool:
        return self.labels == tuple("0123456789")

    def _against_card(self) -> str:
        if self.folder is not None:
            return f"from {printable(self.folder)}, not the test images of its training"
        if self.card_accuracy is None:
            return "the card states no accuracy"
        if self.equals_card:
            return "as its card states"
        return f"DIFFERS from its card: {self.card_accuracy:.2%} ({round(self.card_accuracy * self.images):,})"

    def _matrix(self) -> list[str]:
        side = max(map(len, self.labels))
        width = max(3, *(len(str(count)) for row in self.confusion for count in row))
        header = " ".join(f"{label[:width]:>{width}}" for label in self.labels)
        rows = (
            f"{each.label:>{side}} "
            + " ".join(f"{count or '.':>{width}}" for count in row)
            + f" {_percent(each.precision):>9} {_percent(each.recall):>9}"
            for each, row in zip(self.classes, self.confusion, strict=True)
        )
        return [
            "confusion (rows: true, columns: predicted)",
            f"{'':>{side}} {header} precision    recall",
            *rows,
        ]

    def _pairs(self) -> list[str]:
        return ["most frequent confusions (true -> predicted)"] + [
            f"  {true} -> {predicted}: {count}" for count, true, predicted in self.confusions[:PRINTED_CONFUSIONS]
        ]


def evaluate(model: str | Path, data_dir: Path | None = None, precision: Precision = "float32") -> Evaluation:
    """Classify labelled images with ONNX Runtime; download nothing.

    The images are the test images of the data set that the model was trained on, if `data_dir` is None or holds that
    data set. Otherwise they are all images in `data_dir`, a folder with a subfolder for each class, or in its folder
    "test".

    Args:
        model: a bundled model's name, or a package's folder.
        data_dir: the folder with the images or the data set; None for the digits.
        precision: as for `pdeinfer.Predictor`.

    Raises:
        ModelNotFoundError: no model has this name.
        ModelPackageError: the package is damaged, has no file of this precision, or computes NaN or infinity.
        MissingDependencyError: ONNX Runtime or scikit-learn is not installed.
        DatasetError: the card names no data set and `data_dir` is None; the test images are missing, damaged or
            different; or `data_dir` has no readable image of a label of the model.
    """
    package = zoo.load(model)
    card, labels = package.card, package.card.preset.labels
    import_metrics()  # without scikit-learn, fail before the work
    found = _find_images(card, data_dir)
    with Predictor(package, precision=precision) as predictor:
        info = predictor.info()
        indices, probabilities, speed, unreadable = _classify(predictor, found.source)
    if not len(indices):
        raise DatasetError(f"{data_dir}: no image can be read: {unreadable[0].reason}")
    truth, predicted = found.source.labels[indices], probabilities.argmax(axis=1)
    scores = probabilities.max(axis=1)
    order = np.argsort(-scores, kind="stable")
    examples = [
        Example(
            found.source.name(indices[i]), int(indices[i]), labels[truth[i]], labels[predicted[i]], float(scores[i])
        )
        for is_right in (False, True)
        for i in order[(truth == predicted)[order] == is_right][:EXAMPLES]
    ]
    return Evaluation(
        model=card.preset.name,
        precision=precision,
        labels=labels,
        folder=found.folder,
        confusion=confusion_matrix(truth, predicted, len(labels)),
        card_accuracy=card.test_accuracy(precision) if found.folder is None else None,
        accuracy_interval=accuracy_interval(int((truth == predicted).sum()), len(truth)),
        classes=class_metrics(truth, predicted, labels),
        calibration=calibration(truth, probabilities),
        images_per_second=speed,
        batch_size=info.batch_size,
        device=info.device,
        threads=info.threads,
        pde_layers=info.pde_layers,
        source=found.source,
        mistakes=tuple(each for each in examples if each.label != each.predicted),
        confident=tuple(each for each in examples if each.label == each.predicted),
        unknown_labels=found.unknown_labels,
        unreadable=len(unreadable),
        left_out=(*found.left_out, *unreadable),
    )


def describe_unknown_labels(evaluation: Evaluation) -> str:
    """Return the folders that are named after no label of the model, with their numbers of files."""
    return ", ".join(
        f"{name} ({count:,} file{'' if count == 1 else 's'})" for name, count in evaluation.unknown_labels.items()
    )


@dataclass(frozen=True, slots=True)
class _FoundImages:
    """The images to classify, with the attributes of `Evaluation` that describe where they are from."""

    source: LabelledImages
    folder: str | None = None
    unknown_labels: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()


def _find_images(card: ModelCard, data_dir: Path | None) -> _FoundImages:
    preset, record = card.preset, card.training_record
    dataset = None if record is None else record.dataset
    if data_dir is not None:
        if record is not None and dataset == "folder":
            own = find_recorded_folder(record, preset, data_dir)
            if own is not None:
                return _FoundImages(FileImages(own.files["test"], preset.input), left_out=own.left_out)
        is_standard = dataset in ("mnist", "cifar10") and data_dir.is_dir() and holds_files(dataset, data_dir)
        # The digits have no files: a folder holds other images.
        if dataset in (None, "folder", "digits") or (holds_labels(data_dir, preset.labels) and not is_standard):
            files = find_labelled_files(data_dir, preset.labels)
            source = FileImages(files.files, preset.input)
            return _FoundImages(source, str(files.folder), files.unknown_labels, files.left_out)
    return _FoundImages(SplitImages(load_test_split(record, preset, data_dir)))


def _classify(
    predictor: Predictor, source: LabelledImages
) -> tuple[NDArray[np.int64], NDArray[np.float32], float, list[LeftOut]]:
    """Classify the images, some at a time.

    Returns:
        The indices of the readable images, their probabilities, the images per second, and the unreadable images.
    """
    spec, labels = predictor.info().input, predictor.info().labels
    size = max(predictor.info().batch_size, _CHUNK_BYTES // (spec.height * spec.width * spec.channels))
    indices: list[int] = []
    probabilities = [np.empty((0, len(labels)), np.float32)]
    unreadable: list[LeftOut] = []
    speed = 0.0
    count = len(source.labels)
    for start in range(0, count, size):
        part = range(start, min(start + size, count))
        images = []
        for index, image in zip(part, source.read(part), strict=True):
            if isinstance(image, ImageError):
                unreadable.append(LeftOut(Path(source.name(index)), str(image).removeprefix(f"{source.name(index)}: ")))
            else:
                indices.append(index)
                images.append(image)
        if images:
            batch = np.stack(images)
            speed = speed or _speed(predictor, batch)
            answers = predictor.predict_proba(batch)
            if not np.isfinite(answers).all():
                raise ModelPackageError(f"the network {predictor.info().model} computed NaN or infinity")
            probabilities.append(answers)
    return np.array(indices, np.int64), np.concatenate(probabilities), speed, unreadable


def _speed(predictor: Predictor, images: NDArray[np.uint8]) -> float:
    """Return the images per second: the median of `PASSES` after a warm-up."""
    predictor.predict_proba(images[: predictor.info().batch_size])
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        predictor.predict_proba(images)
        seconds.append(time.perf_counter() - started)
    return len(images) / statistics.median(seconds)


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
