"""The random weights that a training starts with are the best of several draws."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import keras
import numpy as np
import pytest

from pdeinfer.datasets import hold_out, load_dataset
from pdeinfer.nn import Classifier
from pdeinfer.spec.presets import PRESETS, ResidualNetwork
from training.recipes import RECIPES
from training.starts import choose_start

PRESET = replace(PRESETS["digits-pde"], network=ResidualNetwork((4, 4)))


def choose(starts: int) -> tuple[Classifier, list[float], list[Classifier]]:
    """Return the chosen network and the losses, and the draws as they were."""
    recipe = replace(RECIPES["digits-pde"], starts=starts)
    splits = hold_out(load_dataset("digits", None).train, 0.1)
    keras.utils.set_random_seed(3)
    chosen, losses = choose_start(PRESET, recipe, splits, seed=3)
    keras.utils.set_random_seed(3)
    _, *draws = [Classifier(PRESET) for _ in range(1 + starts)]  # the first one is the network that is returned
    return chosen, losses, draws


def assert_equal(network: Classifier, expected: Classifier) -> None:
    for weight, other in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_the_draw_of_lowest_validation_loss_is_returned_untrained() -> None:
    chosen, losses, draws = choose(2)
    assert len(losses) == len(set(losses)) == 2
    assert_equal(chosen, draws[int(np.argmin(losses))])


@pytest.mark.parametrize(("losses", "lowest"), [((2.0, 1.0, 3.0), 1), ((nan, 2.0, 3.0), 1), ((nan, nan, 3.0), 2)])
def test_the_lowest_may_be_any_of_them_and_what_is_not_a_number_is_none(
    losses: Sequence[float], lowest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(network: Classifier, *_: Any, **__: Any) -> None:
        network.set_weights([weight + 1 for weight in network.get_weights()])

    measured = iter(losses)
    monkeypatch.setattr(Classifier, "fit", fit)
    monkeypatch.setattr(Classifier, "evaluate", lambda *_, **__: (next(measured), 0.5))
    chosen, _, draws = choose(3)
    assert_equal(chosen, draws[lowest])
