"""The record of a training survives run.json, metrics.json, cards and results, old and new."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.spec.presets import PRESETS
from pdeinfer.spec.training_record import ImagesRecord, ModelReference, Outcome, SplitRecord, TrainingRecord

ROOT = Path(__file__).parents[2]

OUTCOME = Outcome(
    best_epoch=3,
    seconds=12.5,
    device="cpu",
    versions={"backend": "tensorflow 2.21.0"},
    parameters=5490,
    test_accuracy=0.5,
    test_loss=0.7,
    test_images=4,
    confusion=((1, 1), (1, 1)),
    validation_accuracy=0.6,
    model_sha256="0" * 64,
)
RECORD = TrainingRecord(
    preset="digits-pde",
    classifier=PRESETS["digits-pde"],
    recipe={"dataset": "folder", "epochs": 4},
    seed=7,
    precision="float32",
    data_dir="/home/somebody/photos",
    images=ImagesRecord({"train": SplitRecord(8, "ab"), "test": SplitRecord(2, "cd")}, 0.2, 0, unreadable=1),
    init=ModelReference("digits-pde", "0" * 64),
    init_dir="/home/somebody/model",
    git_commit="abc",
    outcome=OUTCOME,
)


def through_json(values: Any) -> Any:
    return json.loads(json.dumps(values))


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, outcome=None, images=None, init=None)])
def test_a_record_survives_json(record: TrainingRecord) -> None:
    assert TrainingRecord.from_dict(through_json(record.to_dict())) == record


def test_a_card_holds_the_record_without_paths_and_checksum() -> None:
    training, metrics = RECORD.to_card()
    text = json.dumps([training, metrics])
    assert "somebody" not in text
    assert "model_sha256" not in text
    assert metrics.keys() == {"test_accuracy", "test_loss", "test_images", "validation_accuracy", "confusion"}
    expected = replace(RECORD.without_paths(), classifier=None, outcome=replace(OUTCOME, model_sha256=None))
    assert TrainingRecord.from_dict(through_json({**training, **metrics})) == expected


def test_a_confusion_matrix_too_large_for_a_card_is_left_out() -> None:
    large = replace(RECORD, outcome=replace(OUTCOME, confusion=((0,) * 101,) * 101))
    assert "confusion" not in large.to_card()[1]


@pytest.mark.parametrize("name", zoo.names())
def test_a_bundled_card_holds_a_finished_training(name: str) -> None:
    card = zoo.load(name).card
    record = card.training_record
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.test_accuracy == card.metrics["test_accuracy"]
    assert record.to_card()[1] == through_json(record.to_card()[1]) | {"confusion": record.outcome.confusion}


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/*/*/metrics.json")), ids=lambda path: path.parts[-3])
def test_a_published_training_is_read_whole(path: Path) -> None:
    values = json.loads(path.read_text())
    written = through_json(TrainingRecord.from_dict(values).to_dict())
    assert {name: written[name] for name in values if name not in ("classifier", "recipe")} == {
        name: value for name, value in values.items() if name not in ("classifier", "recipe")
    }


def test_an_older_recipe_s_starts_are_its_initializations() -> None:
    values = RECORD.to_dict() | {"recipe": {"dataset": "mnist", "starts": 8}}
    assert TrainingRecord.from_dict(values).recipe == {"dataset": "mnist", "initializations": 8}


def test_unknown_keys_are_ignored() -> None:
    assert TrainingRecord.from_dict(RECORD.to_dict() | {"weather": "sunny"}) == RECORD


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"recipe": None}, "recipe"),
        ({"recipe": {"dataset": "imagenet"}}, "dataset"),
        ({"classifier": {"name": "x"}}, "input|network"),
        ({"images": {"splits": 3}}, "splits"),
        ({"images": {"splits": {}, "test_fraction": "x"}}, "test_fraction"),
        ({"seed": "4"}, "seed"),
        ({"seed": True}, "seed"),
        ({"device": ["cpu"]}, "device"),
        ({"test_accuracy": "0.9"}, "test_accuracy"),
        ({"confusion": 5}, "confusion"),
        ({"confusion": [5]}, "confusion"),
        ({"versions": []}, "versions"),
        ({"images": {"splits": {"test": 3}}}, "test"),
    ],
)
def test_an_impossible_value_is_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TrainingRecord.from_dict(RECORD.to_dict() | changes)


@pytest.mark.parametrize("key", ["preset", "seed", "precision", "device", "test_images"])
def test_a_missing_value_is_named(key: str) -> None:
    values = RECORD.to_dict()
    del values[key]
    with pytest.raises(ValueError, match=key):
        TrainingRecord.from_dict(values)


@pytest.mark.parametrize("metrics", [{}, {"test_accuracy": 0.97}, {"test_accuracy": None, "test_images": 9}])
def test_a_card_without_the_whole_accuracy_has_a_training_without_outcome(metrics: dict[str, Any]) -> None:
    card = zoo.load("digits-pde").card
    record = replace(card, metrics=metrics).training_record
    assert record is not None
    assert card.training_record is not None
    assert record == replace(card.training_record, outcome=None)


def test_a_card_with_another_training_is_a_package_error() -> None:
    card = zoo.load("digits-pde").card
    assert replace(card, training={}).training_record is None
    with pytest.raises(ModelPackageError, match="training"):
        _ = replace(card, training={"recipe": 3}).training_record
