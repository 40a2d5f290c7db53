"""How well and how fast a model package classifies labelled images: as values, JSON and text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from pdeinfer.checks.labelled_images import LabelledImages
from pdeinfer.checks.metrics import Calibration, ClassMetrics
from pdeinfer.images.files import LeftOut
from pdeinfer.package.package import Precision
from pdeinfer.runtime.session import PdeLayers
from pdeinfer.text import counted, printable, valid

_MATRIX_CLASSES = 20  # a larger matrix is too wide for a terminal
_PRINTED_CONFUSIONS = 10


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
        mistakes, confident: the wrong and the correct answers of the highest probability, a few of each.
        unknown_labels: the folders that are named after no label of the model, with their numbers of files.
        unreadable: the number of images that cannot be read.
        left_out: these, and all other files that were not classified, with the reasons.
        images_per_second: of arrays in batches of `batch_size`: the median of three passes after a warm-up.
        device, threads, pde_layers: as in `pdeinfer.PredictorInfo`.
        source: the images, for pictures of the examples; JSON has all attributes but this.
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
        names = [each.name for each in fields(self) if each.name != "source"]
        values: dict[str, Any] = {
            "images": self.images,
            "accuracy": self.accuracy,
            "equals_card": self.equals_card,
            **{name: _json(getattr(self, name)) for name in names},
            "left_out": [{"path": valid(str(each.path)), "reason": valid(each.reason)} for each in self.left_out],
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
            f"{self.images_per_second:,.0f} images per second ({self.device}, "
            f"{counted(self.threads, 'thread')}, batches of {self.batch_size}, {self.pde_layers} operators)",
        ]
        if self._are_digits and (share := self.mutual_confusion("3", "5")) is not None:
            lines.append(f"{share:.2%} of the 3s and 5s taken for each other")
        return "\n".join([*lines, *(self._matrix() if len(self.labels) <= _MATRIX_CLASSES else self._pairs())])

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
            f"  {true} -> {predicted}: {count}" for count, true, predicted in self.confusions[:_PRINTED_CONFUSIONS]
        ]


def describe_unknown_labels(evaluation: Evaluation) -> str:
    """Return the folders that are named after no label of the model, with their numbers of files."""
    return ", ".join(f"{name} ({counted(count, 'file')})" for name, count in evaluation.unknown_labels.items())


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(each) for each in value]
    if isinstance(value, Mapping):
        return {valid(name): _json(each) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    return valid(value) if isinstance(value, str) else value


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
