"""The random weights that a training starts with are the best of several draws."""

from dataclasses import replace

import keras
import numpy as np

from pdeinfer.datasets import hold_out, load_dataset
from pdeinfer.nn import Classifier
from pdeinfer.presets import PRESETS
from training.recipes import RECIPES
from training.starts import choose_start

PRESET = PRESETS["digits-pde"]


def test_the_draw_of_lowest_validation_loss_is_returned_untrained() -> None:
    recipe = replace(RECIPES["digits-pde"], starts=2)
    splits = hold_out(load_dataset("digits", None).train, 0.1)
    keras.utils.set_random_seed(3)
    chosen, losses = choose_start(PRESET, recipe, splits, seed=3)
    assert len(losses) == len(set(losses)) == 2
    keras.utils.set_random_seed(3)
    _, *draws = [Classifier(PRESET) for _ in range(3)]  # the first one is the network that is returned
    for weight, expected in zip(chosen.get_weights(), draws[int(np.argmin(losses))].get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
