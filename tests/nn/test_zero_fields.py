"""The count of dead fields."""

from dataclasses import replace

import numpy as np

from pdeinfer.nn import Classifier, GlobalLayer, count_zero_fields
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import PRESETS

DIGITS = PRESETS["digits-pde"]
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)


def test_channels_whose_relu_never_opens_are_counted_by_field() -> None:
    model = Classifier(DIGITS)
    (layer,) = (layer for layer in model.layers if isinstance(layer, GlobalLayer))
    u, v = layer.velocity_fields
    diffusivity_x, _ = layer.diffusivity_fields
    for field, closed in ((u, 3), (v, 0), (diffusivity_x, 8)):
        beta = np.full(8, 100.0)
        beta[:closed] = -100
        field.get_layer("norm").beta.assign(beta)
    layer.diffusivity_fields[1].get_layer("norm").beta.assign(np.full(8, 100.0))
    assert count_zero_fields(model, IMAGES) == {"layer1": {"channels": 8, "u": 3, "v": 0, "Dx": 8, "Dy": 0}}


def test_fields_that_are_not_learned_are_left_out() -> None:
    def counted(**changes: object) -> dict[str, dict[str, int]]:
        network = replace(DIGITS.network, pde=PdeSpec(**changes))
        return count_zero_fields(Classifier(replace(DIGITS, network=network)), IMAGES)

    assert set(counted(diffusivity=1.0)["layer1"]) == {"channels", "u", "v"}
    assert set(counted(velocity="preactivation", diffusivity=None)["layer1"]) == {"channels", "u"}
    assert count_zero_fields(Classifier(replace(DIGITS, network=replace(DIGITS.network, pde=None))), IMAGES) == {}
