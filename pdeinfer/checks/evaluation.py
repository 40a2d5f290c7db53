"""Measures a model package on the test images of its data set, using only its ONNX files."""

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.datasets import load_test_split
from pdeinfer.package import zoo
from pdeinfer.package.package import Precision
from pdeinfer.predictor import Predictor
from pdeinfer.runtime.session import PdeLayers

MAX_PRINTED_CLASSES = 20
PRINTED_CONFUSIONS = 10
PASSES = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well and how fast a package classifies the test images of its data set.

    Attributes:
        model: the model's name. precision: of the network. labels: of its classes.
        confusion: images by true class (rows) and predicted class (columns).
        card_accuracy: the test accuracy that the card states for this precision, 0..1, or None.
        images_per_second: of arrays in batches of `batch_size`: the median of three passes after a warm-up.
        device, threads, pde_layers: as in `pdeinfer.PredictorInfo`.
    """

    model: str
    precision: Precision
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    card_accuracy: float | None
    images_per_second: float
    batch_size: int
    device: str
    threads: int
    pde_layers: PdeLayers

    @property
    def images(self) -> int:
        """The number of test images."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """The number of correctly classified test images."""
        return sum(row[index] for index, row in enumerate(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of correctly classified test images, 0..1."""
        return self.correct / self.images

    @property
    def equals_card(self) -> bool | None:
        """Whether exactly as many images are correct as the card states; None if it states no accuracy."""
        if self.card_accuracy is None:
            return None
        return abs(self.accuracy - self.card_accuracy) * self.images < 0.5

    def mutual_confusion(self, first: str, second: str) -> float:
        """Return the share of the test images of two classes, 0..1, that are mistaken for the other one.

        Raises:
            ValueError: a class does not exist.
        """
        i, j = self.labels.index(first), self.labels.index(second)
        return (self.confusion[i][j] + self.confusion[j][i]) / (sum(self.confusion[i]) + sum(self.confusion[j]))

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; for digits, with the mutual confusion of 3 and 5."""
        values = {"images": self.images, "accuracy": self.accuracy, "equals_card": self.equals_card, **asdict(self)}
        if self._are_digits:
            values["mutual_confusion_3_5"] = self.mutual_confusion("3", "5")
        return values

    def __str__(self) -> str:
        """Return accuracy, speed and the confusion matrix or, for many classes, the most frequent confusions."""
        name = self.model if self.precision == "float32" else f"{self.model} ({self.precision})"
        lines = [
            f"{name}: {self.accuracy:.2%} of {self.images:,} test images correct ({self.correct:,}), "
            f"{self._against_card()}",
            f"{self.images_per_second:,.0f} images per second ({self.device}, {self.threads} "
            f"thread{'s' if self.threads > 1 else ''}, batches of {self.batch_size}, "
            f"{self.pde_layers} operators)",
        ]
        if self._are_digits:
            lines.append(f"{self.mutual_confusion('3', '5'):.2%} of the 3s and 5s taken for each other")
        return "\n".join([*lines, *(self._matrix() if len(self.labels) <= MAX_PRINTED_CLASSES else self._pairs())])

    @property
    def _are_digits(self) -> bool:
        return self.labels == tuple("0123456789")

    def _against_card(self) -> str:
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
            f"{label:>{side}} " + " ".join(f"{count or '.':>{width}}" for count in row)
            for label, row in zip(self.labels, self.confusion, strict=True)
        )
        return ["confusion (rows: true, columns: predicted)", f"{'':>{side}} {header}", *rows]

    def _pairs(self) -> list[str]:
        pairs = sorted(
            (
                (count, true, predicted)
                for true, row in enumerate(self.confusion)
                for predicted, count in enumerate(row)
                if count and true != predicted
            ),
            key=lambda pair: (-pair[0], pair[1:]),
        )
        return ["most frequent confusions (true -> predicted)"] + [
            f"  {self.labels[true]} -> {self.labels[predicted]}: {count}"
            for count, true, predicted in pairs[:PRINTED_CONFUSIONS]
        ]


def evaluate(model: str | Path, data_dir: Path | None = None, precision: Precision = "float32") -> Evaluation:
    """Classify the test images of the data set that a model was trained on, with ONNX Runtime; download nothing.

    Args:
        model: a bundled model's name, or a package's folder.
        data_dir: the folder with the data set; the digits need none.
        precision: as for `pdeinfer.Predictor`.

    Raises:
        ModelNotFoundError: no model has this name.
        ModelPackageError: the package is damaged, or has no file of this precision.
        MissingDependencyError: ONNX Runtime or, for the digits, scikit-learn is not installed.
        DatasetError: the card names no data set, or its test images are missing, damaged or different.
    """
    package = zoo.load(model)
    card, preset = package.card, package.card.preset
    test = load_test_split(card.training_record, preset, data_dir)
    with Predictor(package, precision=precision) as predictor:
        info = predictor.info()
        predictor.predict_proba(test.images[: info.batch_size])
        seconds = []
        for _ in range(PASSES):
            started = time.perf_counter()
            probabilities = predictor.predict_proba(test.images)
            seconds.append(time.perf_counter() - started)
    confusion = np.zeros((len(preset.labels),) * 2, np.int64)
    np.add.at(confusion, (test.labels, probabilities.argmax(axis=1)), 1)
    return Evaluation(
        model=preset.name,
        precision=precision,
        labels=preset.labels,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        card_accuracy=card.test_accuracy(precision),
        images_per_second=len(test) / statistics.median(seconds),
        batch_size=info.batch_size,
        device=info.device,
        threads=info.threads,
        pde_layers=info.pde_layers,
    )
