"""Comparing two implementations: what passes, what fails, and the report."""

import json

import numpy as np
import pytest

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import compare, synthetic_images

IMAGES = {"images": np.random.default_rng(1).integers(0, 256, (100, 4, 4, 1), dtype=np.uint8)}


def classify(images: Array) -> Array:
    """Three classes whose probabilities depend on the image."""
    logits = images.reshape(len(images), -1)[:, :3] / 64
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def test_an_implementation_equals_itself_on_every_batch_size() -> None:
    report = compare(("a", classify), ("b", classify), IMAGES)
    assert report.passed
    assert [(row.batch_size, row.count, row.top1_equal) for row in report.comparisons] == [
        (1, 16, 16),
        (2, 16, 16),
        (7, 16, 16),
        (64, 100, 100),
    ]
    assert report.max_difference == 0
    assert str(report).endswith("  equal")


def test_the_reference_runs_once_per_image_at_the_largest_batch_size() -> None:
    asked: list[int] = []

    def reference(images: Array) -> Array:
        asked.append(len(images))
        return classify(images)

    assert compare(("a", reference), ("b", classify), IMAGES).passed
    assert asked == [64, 36]


def test_a_difference_above_the_tolerance_fails_and_is_reported() -> None:
    def shifted(images: Array) -> Array:
        return classify(images) + np.where(images[:, :1, 0, 0] == images.max(), 3e-5, 0)

    report = compare(("a", classify), ("b", shifted), IMAGES)
    assert not report.passed
    assert report.max_difference == pytest.approx(3e-5, rel=1e-2)
    assert "3.0e-05" in str(report)
    assert str(report).endswith("NOT EQUAL")
    assert compare(("a", classify), ("b", shifted), IMAGES, tolerance=1e-4).passed


def test_another_most_probable_class_fails_however_small_the_difference() -> None:
    def tie(first: float) -> Array:
        return np.array([[0.5 + first, 0.5 - first]])

    report = compare(
        ("a", lambda x: tie(1e-9).repeat(len(x), 0)), ("b", lambda x: tie(-1e-9).repeat(len(x), 0)), IMAGES
    )
    assert report.max_difference < 1e-8
    assert not report.passed


def test_a_nan_fails_and_stays_valid_json() -> None:
    def broken(images: Array) -> Array:
        probabilities = classify(images)
        probabilities[0, 0] = np.nan
        return probabilities

    report = compare(("a", classify), ("b", broken), IMAGES)
    assert not report.passed
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["passed"] is False
    assert values["comparisons"][0]["max_absolute"] is None


def test_a_network_of_nans_fails() -> None:
    def diverged(images: Array) -> Array:
        return classify(images) * np.nan

    report = compare(("a", diverged), ("b", diverged), IMAGES)
    assert not report.passed
    assert np.isnan(report.comparisons[0].max_relative)


def test_thousands_of_classes_are_compared() -> None:
    def uniform(images: Array) -> Array:
        return np.full((len(images), 2000), 1 / 2000, np.float32)

    assert compare(("a", uniform), ("b", uniform), IMAGES).passed


def test_a_fault_at_a_single_batch_size_is_found() -> None:
    def faulty(images: Array) -> Array:
        probabilities = classify(images)
        return probabilities[::-1] if len(images) == 7 else probabilities

    report = compare(("a", classify), ("b", faulty), IMAGES)
    assert [row.batch_size for row in report.comparisons if row.max_absolute > 0] == [7]
    assert not report.passed


def test_synthetic_images_have_the_shape_and_the_extremes() -> None:
    sets = synthetic_images(6, 5, 3)
    for images in sets.values():
        assert images.dtype == np.uint8
        assert images.shape[1:] == (6, 5, 3)
    extremes = sets["extremes"]
    assert (extremes[0] == 0).all()
    assert (extremes[1] == 255).all()
    assert np.count_nonzero(extremes[2]) == 3  # one white pixel
    assert np.array_equal(extremes[3], 255 - extremes[2])
