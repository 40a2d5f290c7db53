"""The bundled models match their cards on real images."""

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from pdeinfer import ModelPackage, Predictor
from pdeinfer.arrays import Array
from pdeinfer.checks import measuring
from pdeinfer.checks.parity import TOLERANCE, compare
from pdeinfer.datasets import DatasetName, Split, load_dataset
from pdeinfer.export import verify_package
from pdeinfer.nn.loading import load_classifier
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE, Precision

DATA_DIR = Path(os.environ["PDEINFER_DATA_DIR"]) if os.environ.get("PDEINFER_DATA_DIR") else None


def slow_unless_default(name: str, *values: str) -> Any:
    """Return a parameter set for a bundled model: the default one is small, others classify thousands of images."""
    return pytest.param(name, *values, marks=() if name == zoo.DEFAULT_MODEL else pytest.mark.slow)


def load_test(package: ModelPackage) -> Split:
    return load_test_images(package.card.training["recipe"]["dataset"])


@cache
def load_test_images(dataset: DatasetName) -> Split:
    """Load the data set's test images; skip the test if they are not available."""
    if dataset != "digits" and DATA_DIR is None:
        pytest.skip(f"{dataset} needs PDEINFER_DATA_DIR, the folder of the data set")
    return load_dataset(dataset, DATA_DIR).test


def test_the_default_model_is_bundled() -> None:
    assert zoo.DEFAULT_MODEL in zoo.names()


@pytest.mark.parametrize("name", zoo.names())
def test_a_bundled_model_proves_itself_again(name: str) -> None:
    reports = verify_package(zoo.load(name))
    assert {report.passed for report in reports} == {True}


@pytest.mark.parametrize(
    ("name", "precision"),
    [slow_unless_default(name, precision) for name in zoo.names() for precision in zoo.load(name).precisions],
)
def test_a_bundled_file_has_its_card_s_accuracy_near_float32(
    name: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "PASSES", 1)  # the others only refine the speed
    package = zoo.load(name)
    load_test(package)  # or the test is skipped
    data_dir = None if package.card.training["recipe"]["dataset"] == "digits" else DATA_DIR
    found = measuring.evaluate(name, data_dir, precision)
    assert found.equals_card
    assert found.accuracy >= package.card.metrics["test_accuracy"] - 0.003


@pytest.mark.parametrize("name", [slow_unless_default(name) for name in zoo.names()])
def test_a_bundled_model_equals_keras_on_test_images(name: str) -> None:
    import tensorflow as tf

    package = zoo.load(name)
    images = load_test(package).images[:1000]  # export compared them all; of the large networks that takes minutes
    classifier = load_classifier(package.path / KERAS_FILE)

    @tf.function(autograph=False)  # as Keras's own `predict` runs it, and quicker than step by step
    def probabilities(images: Any) -> Any:
        return tf.nn.softmax(classifier(images, training=False))

    def original(images: Array) -> Array:
        return probabilities(images).numpy()

    with Predictor(package, batch_size=500) as predictor:
        report = compare(("Keras", original), (name, predictor.predict_proba), {"test": images}, batch_sizes=(500,))
    assert report.comparisons[0].top1_equal == len(images)
    assert report.max_difference <= TOLERANCE


@pytest.mark.parametrize("name", zoo.names())
def test_a_png_of_a_test_image_gets_the_answer_of_its_pixels(name: str) -> None:
    package = zoo.load(name)
    images = load_test(package).images[:20]
    with Predictor(package) as predictor:
        expected = predictor.predict_proba(images)
        for image, probabilities in zip(images, expected, strict=True):
            file = io.BytesIO()
            PIL.Image.fromarray(image.squeeze()).save(file, "PNG")
            prediction = predictor.predict(file.getvalue())
            assert prediction.index == probabilities.argmax()
            assert prediction.score == pytest.approx(probabilities.max(), abs=1e-6)
