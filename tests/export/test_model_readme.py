"""The README of a model package repeats what its card says."""

import re
from dataclasses import replace
from typing import Any

import pytest

from pdeinfer.export.model_readme import README_FILE, model_readme
from pdeinfer.package import zoo
from pdeinfer.package.card import ModelCard
from pdeinfer.spec.presets import PRESETS


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return zoo.load("mnist-pde").card


def test_the_figures_are_those_of_the_card(card: ModelCard) -> None:
    text = model_readme(card)
    accuracy = f"{100 * card.metrics['test_accuracy']:.2f} % of {card.metrics['test_images']:,} images"
    assert f"| test accuracy | {accuracy} |" in text
    assert f"| parameters | {card.parameters:,} |" in text
    assert f"| multiply-adds per image | {card.macs:,} |" in text
    assert f"| seed | {card.training['seed']} |" in text
    assert f"| git commit | {card.training['git_commit']} |" in text


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_only_a_distilled_network_has_a_temperature_of_distillation(weight: float, card: ModelCard) -> None:
    recipe = {**card.training["recipe"], "distillation_weight": weight, "temperature": 4.0}
    text = model_readme(replace(card, training={**card.training, "recipe": recipe}))
    assert ("| distillation temperature | 4.0 |" in text) == (weight > 0)
    assert "| temperature |" not in text


@pytest.mark.parametrize("fraction", [None, 0.1])
def test_validation_images_of_the_user_s_are_no_fraction(fraction: float | None, card: ModelCard) -> None:
    recipe = {**card.training["recipe"], "dataset": "folder", "validation_fraction": 0.1}
    splits = {name: {"files": 9} for name in ("train", "val", "test")}
    images = {"splits": splits, "validation_fraction": fraction}
    text = model_readme(replace(card, training={**card.training, "recipe": recipe, "images": images}))
    assert ("| validation fraction | 0.1 |" in text) == (fraction is not None)


def test_the_int8_file_is_described_and_precisions_of_older_packages_are_not(card: ModelCard) -> None:
    parity = {"reference": "model.onnx", "comparisons": []}
    text = model_readme(replace(card, variants={name: {"parity": parity} for name in ("half", "int8")}))
    assert "model.int8.onnx" in text
    assert "half" not in text


@pytest.mark.parametrize("name", zoo.names())
def test_no_difference_is_larger_than_the_readme_of_a_bundled_model_says(name: str) -> None:
    card = zoo.load(name).card
    text = (zoo.load(name).path / README_FILE).read_text(encoding="utf-8")
    found = [max(row["max_relative"] for row in report["comparisons"]) for report in card.parity.values()]
    found += [row["max_absolute"] for one in card.variants.values() for row in one["parity"]["comparisons"]]
    stated = [float(bound) for bound in re.findall(r"within ([0-9.e-]+)", text)]
    assert len(stated) == len(found)
    for bound, value in zip(stated, found, strict=True):
        assert value <= bound <= 1.1 * value


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"test_accuracy": None, "test_images": None},
        {"validation_accuracy": None, "confusion": None, "calibration": None},
        {"confusion": [[1]]},
        {"calibration": {"temperature": 1.2}},
    ],
)
def test_what_is_not_known_is_left_out(metrics: dict[str, Any], card: ModelCard) -> None:
    for training in ({}, card.training):
        text = model_readme(replace(card, training=training, metrics=metrics))
        assert not [line for line in text.splitlines() if re.search("accuracy [|(]|ECE|weakest|None|null", line)]
        assert ("not calibrated" in text) == ("temperature" not in str(metrics))


def test_an_accuracy_without_the_number_of_images_is_stated(card: ModelCard) -> None:
    assert "| test accuracy | 97.00 % |" in model_readme(replace(card, metrics={"test_accuracy": 0.97}))


def test_data_limits_and_licence_are_named(card: ModelCard) -> None:
    text = model_readme(card)
    assert "MNIST: 60,000 training and 10,000 test images" in text
    assert "The model knows 10 classes and nothing else" in text
    assert "Apache License 2.0" in text


def test_the_weakest_class_and_its_commonest_mistake_are_named(card: ModelCard) -> None:
    confusion = [[100 if row == column else 0 for column in range(10)] for row in range(10)]
    confusion[4] = [0, 0, 0, 0, 80, 3, 0, 0, 0, 17]
    text = model_readme(replace(card, metrics={**card.metrics, "confusion": confusion}))
    assert "The weakest class is 4: 80.0 % of its test images are recognised. It is most often mistaken for 9." in text


def test_a_class_without_test_images_is_not_the_weakest(card: ModelCard) -> None:
    confusion = [[100 if row == column else 0 for column in range(10)] for row in range(10)]
    confusion[0] = [0] * 10
    confusion[8] = [0, 30, 0, 0, 0, 0, 0, 0, 70, 0]
    text = model_readme(replace(card, metrics={**card.metrics, "confusion": confusion}))
    assert "The weakest class is 8: 70.0 % of its test images are recognised. It is most often mistaken for 1." in text


def test_without_mistakes_no_class_is_the_weakest(card: ModelCard) -> None:
    confusion = [[100 if row == column else 0 for column in range(10)] for row in range(10)]
    assert "weakest" not in model_readme(replace(card, metrics={**card.metrics, "confusion": confusion}))


def test_every_image_that_was_compared_is_counted_once(card: ModelCard) -> None:
    text = model_readme(card)
    assert card.metrics["test_images"] == 10_000
    images = {row["images"]: row["count"] for row in next(iter(card.parity.values()))["comparisons"]}
    assert f"(relative), {sum(images.values()):,} images" in text
    assert 10_000 < sum(images.values()) < 10_400
    (fields,) = [line for line in text.splitlines() if line.startswith("| fields.onnx")]
    assert int(fields.split()[-3]) < 100


def test_an_unknown_training_gives_no_data_section_and_no_licence_of_ours() -> None:
    text = model_readme(ModelCard(PRESETS["cifar10-resnet32"], parameters=464_154, macs=69_124_736, opset=18))
    assert "## Training" not in text
    assert "## Data" not in text
    assert "Apache" not in text
    assert "\n# cifar10-resnet32\n\nA residual network that classifies colour images of 32x32 pixels" in text


def test_a_folder_of_images_gives_its_counts_and_no_licence_of_ours(card: ModelCard) -> None:
    training = {
        **card.training,
        "recipe": {**card.training["recipe"], "dataset": "folder"},
        "images": {"splits": {"train": {"files": 1200}, "test": {"files": 300}}},
    }
    text = model_readme(replace(card, training=training))
    assert "A private folder of images: train 1,200 files, test 300 files." in text
    assert "Apache" not in text
