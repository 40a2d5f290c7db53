"""A package's README header and configuration files say what its card says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

from pdeinfer.export.hugging_face import config, preprocessor, write_configs
from pdeinfer.export.model_readme import model_readme
from pdeinfer.images.convert import to_array
from pdeinfer.package import zoo
from pdeinfer.package.card import ModelCard
from pdeinfer.spec.presets import PRESETS


def header(card: ModelCard) -> dict[str, Any]:
    start, text, _ = model_readme(card).split("---\n", 2)
    assert start == ""
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@pytest.mark.parametrize("name", zoo.names())
def test_a_bundled_model_is_described_by_its_card(name: str) -> None:
    package = zoo.load(name)
    package.verify_checksums()
    preset = package.card.preset

    assert package.read_file("README.md").decode() == model_readme(package.card)
    assert json.loads(package.read_file("config.json")) == config(preset)
    assert json.loads(package.read_file("preprocessor_config.json")) == preprocessor(preset.input)


def test_the_header_states_the_measured_accuracy_on_the_data_set() -> None:
    card = zoo.load("mnist-pde").card
    values = header(card)

    assert values["license"] == "apache-2.0"
    assert values["library_name"] == "pdeinfer"
    assert values["pipeline_tag"] == "image-classification"
    assert values["datasets"] == ["ylecun/mnist"]
    assert values["metrics"] == ["accuracy"]
    ((model,),) = (values["model-index"],)
    ((result,),) = (model["results"],)
    assert model["name"] == "mnist-pde"
    assert result["dataset"]["type"] == "ylecun/mnist"
    assert result["metrics"][0]["value"] == card.metrics["test_accuracy"]


def test_without_a_record_the_header_claims_no_accuracy_no_data_and_no_licence_of_ours() -> None:
    values = header(ModelCard(PRESETS["cifar10-resnet32"], parameters=1, macs=1, opset=18))

    assert values["license"] == "unknown"
    assert not {"datasets", "metrics", "model-index"} & values.keys()


def test_private_images_are_no_data_set_of_the_hub() -> None:
    card = zoo.load("mnist-pde").card
    training = {
        **card.training,
        "recipe": {**card.training["recipe"], "dataset": "folder"},
        "images": {"splits": {"train": {"files": 1200}, "test": {"files": 300}}},
    }
    values = header(replace(card, training=training))

    assert "datasets" not in values
    assert values["license"] == "unknown"
    assert values["model-index"][0]["results"][0]["dataset"]["type"] == "imagefolder"


def test_labels_and_their_indices_are_each_other_s_inverse() -> None:
    values = config(PRESETS["cifar10-global"])

    assert values["num_labels"] == len(values["id2label"]) == len(values["label2id"]) == 10
    assert all(values["label2id"][label] == int(index) for index, label in values["id2label"].items())
    assert (values["image_size"], values["num_channels"]) == (32, 3)


def test_the_preprocessor_s_steps_give_the_predictor_s_pixels() -> None:
    package = zoo.load("cifar10-global")
    steps = json.loads(package.read_file("preprocessor_config.json"))
    noise = np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)
    picture = PIL.Image.fromarray(noise)

    # As the steps say: the shorter side to 32, then the middle of 32 x 32; neither rescaled nor normalised.
    assert not steps["do_rescale"]
    assert not steps["do_normalize"]
    side, crop = steps["size"]["shortest_edge"], steps["crop_size"]
    resized = picture.resize((72 * side // 48, side), PIL.Image.Resampling(steps["resample"]))
    left = (resized.width - crop["width"]) // 2
    pixels = np.asarray(resized.crop((left, 0, left + crop["width"], crop["height"])))

    assert np.array_equal(pixels, to_array(picture, package.card.preset.input))


def test_images_of_other_shapes_and_fits_are_described() -> None:
    spec = replace(PRESETS["cifar10-global"].input, height=48, width=64)
    preset = replace(PRESETS["cifar10-global"], input=spec)

    assert config(preset)["image_size"] == [48, 64]
    assert preprocessor(replace(spec, fit="stretch"))["size"] == {"height": 48, "width": 64}
    padded = preprocessor(replace(spec, fit="pad"))
    assert padded["size"] == {"max_height": 48, "max_width": 64}
    assert padded["pad_size"] == {"height": 48, "width": 64}
    assert (padded["image_mean"], padded["image_std"]) == (list(spec.mean), list(spec.std))


def test_a_crop_that_is_not_square_has_no_preprocessor(tmp_path: Path) -> None:
    preset = PRESETS["cifar10-global"]

    write_configs(replace(preset, input=replace(preset.input, height=48, width=64)), tmp_path)

    assert preset.input.fit == "crop"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
