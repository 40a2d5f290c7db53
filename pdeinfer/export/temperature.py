"""Fits the temperature that makes the probabilities of a network agree with its accuracy.

The logits are divided by one number, T, which minimises the cross-entropy of the validation images: Guo et al., "On
Calibration of Modern Neural Networks", ICML 2017. The order of the classes stays.
"""

from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.metrics import calibration
from pdeinfer.checks.parity import in_batches
from pdeinfer.datasets import Split
from pdeinfer.errors import DatasetError, ParityError

_LOWEST, _HIGHEST = 0.05, 20.0


def scale_probabilities(classifier: Any, validation: Split, test: Split | None) -> dict[str, Any]:
    """Divide the logits of a network by the temperature fitted on its validation images.

    The weights of the last layer are divided, so that every file made from the network has the temperature.

    Args:
        classifier: a `pdeinfer.nn.Classifier`; changed in place.
        validation: the images to fit on.
        test: the images to measure the calibration on; without them, it is measured on `validation`.

    Returns:
        What a card states in `metrics`: "calibration" and, with test images, their "test_loss".

    Raises:
        DatasetError: the network is right on every validation image, or the best temperature is not from 0.05 to 20.
        ParityError: an answer changed.
    """
    from scipy.special import softmax

    measured = validation if test is None else test
    before, before_measured = (_logits(classifier, split) for split in (validation, measured))
    if (before.argmax(axis=1) == validation.labels).all():
        raise DatasetError(
            f"no temperature can be fitted: all of the {len(validation)} validation images are classified correctly; "
            "export without it, or train with more validation images"
        )
    temperature = fit_temperature(before, validation.labels)
    last = classifier.get_layer("logits")
    last.set_weights([weights / temperature for weights in last.get_weights()])
    after, after_measured = (_logits(classifier, split) for split in (validation, measured))
    changed = sum(
        int((a.argmax(axis=1) != b.argmax(axis=1)).sum())
        for a, b in ((before, after), (before_measured, after_measured))
    )
    if changed:
        raise ParityError(f"the temperature changed {changed} answers")
    calibrated = {
        "temperature": temperature,
        "validation_images": len(validation),
        "measured_on": "validation images" if test is None else "test images",
        "images": len(measured),
        "ece_before": calibration(measured.labels, softmax(before_measured, axis=1)).error,
        "ece_after": calibration(measured.labels, softmax(after_measured, axis=1)).error,
    }
    if test is None:
        return {"calibration": calibrated}
    return {"calibration": calibrated, "test_loss": _cross_entropy(after_measured, test.labels)}


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the temperature, 0.05 to 20, that minimises the cross-entropy of softmax(logits / temperature).

    Args:
        logits: float64 (N, classes). labels: int (N,).

    Raises:
        DatasetError: the best temperature lies outside.
    """
    from scipy.optimize import minimize_scalar

    def loss(inverse: float) -> float:  # convex in 1 / T
        return _cross_entropy(logits * inverse, labels)

    best = minimize_scalar(loss, bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded")
    temperature = float(1 / best.x)
    if np.isclose(temperature, (_LOWEST, _HIGHEST), rtol=1e-3).any():  # the search ends just inside
        raise DatasetError(
            f"no temperature can be fitted: expected the best one to lie between {_LOWEST:g} and {_HIGHEST:g}, got the "
            f"limit {temperature:.3g} for {len(labels)} validation images; check their labels, or export without it"
        )
    return temperature


def _cross_entropy(logits: Array, labels: Array) -> float:
    from scipy.special import log_softmax

    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _logits(classifier: Any, split: Split) -> Array:
    import keras

    def classify(images: Array) -> Array:
        with keras.device("cpu:0"):  # as the proof computes
            return np.asarray(classifier(images, training=False))

    return in_batches(classify, split.images, 64)
