"""Measures of classification: by class with scikit-learn, and how far probabilities can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.errors import MissingDependencyError

CALIBRATION_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """How well one class is recognised.

    Attributes:
        images: the number of images of the class.
        precision: the share of the images with this answer that are of the class, 0..1; None if there are none.
        recall: the share of the class's images with this answer, 0..1; None if there are none.
    """

    label: str
    images: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """The images whose most probable class has a probability in one interval.

    Attributes:
        images: their number. confidence: the mean of these probabilities. accuracy: the share of correct answers.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether the probability of the answer is the share of correct answers.

    Attributes:
        error: the expected calibration error (ECE): the mean over the images of |accuracy - confidence| of their bin.
        bins: those of `CALIBRATION_BINS` equal intervals of 0..1 that have images, in order: a reliability diagram.
    """

    error: float
    bins: tuple[ConfidenceBin, ...]


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> tuple[tuple[int, ...], ...]:
    """Return the number of images by true class (rows) and predicted class (columns).

    Args:
        labels, predicted: int (N,), class indices.
    """
    matrix = import_metrics().confusion_matrix(labels, predicted, labels=np.arange(classes))
    return tuple(map(tuple, matrix.tolist()))


def class_metrics(labels: Array, predicted: Array, names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Measure each class.

    Args:
        labels, predicted: int (N,), indices of `names`.
    """
    precision, recall, _, images = import_metrics().precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(names)), zero_division=np.nan
    )
    return tuple(
        ClassMetrics(name, int(count), _or_none(p), _or_none(r))
        for name, count, p, r in zip(names, images, precision, recall, strict=True)
    )


def calibration(labels: Array, probabilities: Array) -> Calibration:
    """Measure how far the probability of the answer is from the share of correct answers.

    Args:
        labels: int (N,), N at least 1. probabilities: (N, classes).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_correct = probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    indices = np.searchsorted(inner_edges, confidence)  # a bin holds its upper edge
    bins = tuple(
        ConfidenceBin(int(chosen.sum()), float(confidence[chosen].mean()), float(is_correct[chosen].mean()))
        for chosen in (indices == index for index in np.unique(indices))
    )
    error = sum(each.images * abs(each.accuracy - each.confidence) for each in bins) / len(labels)
    return Calibration(error, bins)


def accuracy_interval(correct: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a share of correct answers."""
    from scipy.stats import binomtest

    interval = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def import_metrics() -> Any:
    """Return sklearn.metrics. With scikit-learn comes SciPy.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        import sklearn.metrics
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", None, "measuring a classifier") from error
    return sklearn.metrics


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
