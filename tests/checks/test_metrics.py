"""Measures of classification, against scikit-learn and hand-made cases."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from pdeinfer.checks.metrics import CALIBRATION_BINS, accuracy_interval, calibration, class_metrics, confusion_matrix


def test_precision_and_recall_of_each_class() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 3])
    cat, dog, cow, rat = class_metrics(truth, predicted, ("cat", "dog", "cow", "rat"))
    assert (cat.label, cat.images, cat.precision, cat.recall) == ("cat", 3, 1.0, pytest.approx(2 / 3))
    assert (dog.images, dog.precision, dog.recall) == (2, 0.5, 0.5)
    assert (cow.images, cow.precision, cow.recall) == (0, None, None)
    assert (rat.images, rat.precision, rat.recall) == (0, 0.0, None)


def test_the_confusion_matrix_has_the_classes_without_images() -> None:
    assert confusion_matrix(np.array([0, 0, 2]), np.array([0, 2, 2]), 3) == ((1, 0, 1), (0, 0, 0), (0, 0, 1))


def test_the_calibration_error_weighs_each_bin_by_its_images() -> None:
    # Two answers of 0.9, one right; one answer of 0.6, right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = calibration(np.array([0, 1, 1]), probabilities)
    assert [each.images for each in found.bins] == [1, 2]
    assert found.error == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)


def test_the_reliability_diagram_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.3), 2000)
    truth = np.where(rng.random(2000) < 0.7, probabilities.argmax(axis=1), rng.integers(0, 4, 2000))
    accuracy, confidence = calibration_curve(
        probabilities.argmax(axis=1) == truth, probabilities.max(axis=1), n_bins=CALIBRATION_BINS
    )
    found = calibration(truth, probabilities)
    np.testing.assert_allclose([each.accuracy for each in found.bins], accuracy)
    np.testing.assert_allclose([each.confidence for each in found.bins], confidence)
    assert sum(each.images for each in found.bins) == 2000


def test_wilsons_interval() -> None:
    low, high = accuracy_interval(9, 10)
    # (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) for p = 0.9, n = 10, z = 1.95996
    assert (low, high) == (pytest.approx(0.59585, abs=1e-5), pytest.approx(0.98212, abs=1e-5))
    assert accuracy_interval(10, 10)[1] == 1
