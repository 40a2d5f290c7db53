"""Starting a network from the weights of a trained one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdeinfer.errors import ModelPackageError, TrainingError
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.spec.presets import PRESETS, Preset
from tests.conftest import write_tiny_package
from tests.export.conftest import randomize
from training import plan
from training.arguments import parse_arguments
from training.recipes import RECIPES
from training.weight_transfer import transfer_weights

DIGITS = PRESETS["digits-pde"]


def classifier(preset: Preset, seed: int) -> Any:
    from pdeinfer.nn import Classifier

    network = Classifier(preset)
    randomize(network, seed)
    return network


def package_of(network: Any, folder: Path) -> ModelPackage:
    """Write a package that holds the network's `model.keras`."""
    write_tiny_package(folder, network.preset)
    network.save(folder / KERAS_FILE)
    write_card(folder, ModelPackage.read(folder).card)
    return ModelPackage.read(folder)


def values(network: Any, name: str) -> list[np.ndarray]:
    return [np.asarray(weight) for layer in network.layers if layer.name == name for weight in layer.weights]


def with_pde(**changes: Any) -> Preset:
    return replace(DIGITS, network=replace(DIGITS.network, pde=replace(DIGITS.network.pde, **changes)))


@pytest.mark.parametrize(
    "preset", [DIGITS, PRESETS["mnist-pde"], with_pde(velocity="residual", start="residual")], ids=lambda p: p.name
)
def test_an_equal_network_gets_every_weight(preset: Preset, tmp_path: Path) -> None:
    source = classifier(preset, seed=1)
    network = classifier(preset, seed=2)
    transfer = transfer_weights(network, package_of(source, tmp_path / "p"))
    for weight, expected in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(weight, expected), weight.path
    assert transfer.random_layers == ()
    assert transfer.copied == transfer.total == sum(np.asarray(weight).size for weight in network.weights)
    assert str(transfer).endswith(f"weights from {preset.name}; no layer is random")


def test_another_padding_of_strided_convolutions_gets_every_weight(tmp_path: Path) -> None:
    other = replace(DIGITS, network=replace(DIGITS.network, strided_padding="symmetric"))
    assert other.network != DIGITS.network
    transfer = transfer_weights(classifier(other, seed=2), package_of(classifier(DIGITS, seed=1), tmp_path / "p"))
    assert transfer.copied == transfer.total
    assert transfer.random_layers == ()


def test_other_labels_leave_the_last_layer_random(tmp_path: Path) -> None:
    source = classifier(DIGITS, seed=1)
    labels = tuple("abcdefghij")  # as many as the digits: the shapes alone would fit
    network = classifier(replace(DIGITS, labels=labels, input=replace(DIGITS.input, height=20)), seed=2)
    before = values(network, "logits")
    transfer = transfer_weights(network, package_of(source, tmp_path / "p"))
    assert transfer.random_layers == ("logits",)
    assert transfer.total - transfer.copied == 16 * 10 + 10
    for weight, expected in zip(values(network, "logits"), before, strict=True):
        assert np.array_equal(weight, expected)
    for weight, expected in zip(network.weights[:-2], source.weights[:-2], strict=True):
        assert np.array_equal(weight, expected), weight.path


def test_a_pde_layer_gets_the_weights_of_the_fields_it_has(tmp_path: Path) -> None:
    source = classifier(with_pde(num_steps=1, velocity=None), seed=1)
    network = classifier(DIGITS, seed=2)
    transfer = transfer_weights(network, package_of(source, tmp_path / "p"))
    (layer,) = (layer for layer in network.layers if "global_layer" in layer.name)
    (other,) = (layer for layer in source.layers if "global_layer" in layer.name)
    assert transfer.random_layers == (layer.name,)
    for field, expected in zip(layer.diffusivity_fields, other.diffusivity_fields, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(field.weights, expected.weights, strict=True))
    assert transfer.total - transfer.copied == sum(
        np.asarray(weight).size for field in layer.velocity_fields for weight in field.weights
    )


def test_fields_of_several_layers_get_the_weights_of_the_same_field(tmp_path: Path) -> None:
    source = classifier(with_pde(velocity=None, diffusivity="residual"), seed=1)
    network = classifier(with_pde(velocity="residual", diffusivity="residual", start="residual"), seed=2)
    (layer,), (other,) = ([each for each in net.layers if "global_layer" in each.name] for net in (network, source))
    parts = (*layer.velocity_fields, *layer.start_layers)
    before = [np.asarray(weight).copy() for part in parts for weight in part.weights]
    transfer_weights(network, package_of(source, tmp_path / "p"))
    for field, expected in zip(layer.diffusivity_fields, other.diffusivity_fields, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(field.weights, expected.weights, strict=True))
    after = [weight for part in parts for weight in part.weights]
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    "other",
    [
        replace(DIGITS, name="wide", network=replace(DIGITS.network, widths=(8, 32))),
        replace(DIGITS, name="deep", network=replace(DIGITS.network, blocks_per_stage=2)),
        replace(DIGITS, name="plain", network=replace(DIGITS.network, pde=None)),
        PRESETS["mnist-pde"],
    ],
    ids=lambda preset: preset.name,
)
def test_another_kind_of_network_is_refused_before_it_is_loaded(other: Preset, tmp_path: Path) -> None:
    package = ModelPackage.read(write_tiny_package(tmp_path / "p", other))
    package.card.files[KERAS_FILE] = package.card.files["model.onnx"]
    with pytest.raises(TrainingError, match=f"digits-pde cannot start from {other.name}: expected ResidualNetwork"):
        transfer_weights(classifier(DIGITS, seed=2), package)


def test_a_missing_or_damaged_original_is_refused(tmp_path: Path) -> None:
    network = classifier(DIGITS, seed=2)
    with pytest.raises(TrainingError, match=r"has no model\.keras to start from"):
        transfer_weights(network, ModelPackage.read(write_tiny_package(tmp_path / "without", DIGITS)))
    package = package_of(network, tmp_path / "damaged")
    (package.path / KERAS_FILE).write_bytes(b"x" * package.card.files[KERAS_FILE].bytes)
    with pytest.raises(ModelPackageError, match="is damaged"):
        transfer_weights(network, package)


def test_given_weights_rule_out_trying_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_read_standard", lambda *_: None)
    assert RECIPES["mnist-pde"].initializations > 1
    begun = plan.begin(parse_arguments(["mnist-pde", "--init", "mnist-pde"]))
    assert begun.recipe.initializations == begun.record.recipe["initializations"] == 1
