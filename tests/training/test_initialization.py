"""A training starts from the best of several random initial weights."""

import signal
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import keras
import numpy as np
import pytest

from pdeinfer.datasets import hold_out, load_dataset
from pdeinfer.nn import Classifier
from pdeinfer.spec.networks import ResidualNetwork
from pdeinfer.spec.presets import PRESETS
from training.batches import Batches, EvaluationBatches
from training.initialization import initialize
from training.recipes import RECIPES

PRESET = replace(PRESETS["digits-pde"], network=ResidualNetwork((4, 4)))


def choose(count: int) -> tuple[Classifier, list[float], list[Classifier]]:
    """Return the chosen network, the losses, and the candidates as they were initialized."""
    recipe = replace(RECIPES["digits-pde"], initializations=count)
    splits = hold_out(load_dataset("digits", None).train, 0.1)
    keras.utils.set_random_seed(3)
    chosen, losses = initialize(PRESET, recipe, splits, seed=3)
    keras.utils.set_random_seed(3)
    _, *candidates = [Classifier(PRESET) for _ in range(1 + count)]  # the first is the network that is returned
    return chosen, losses, candidates


def assert_equal(network: Classifier, expected: Classifier) -> None:
    for weight, other in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_the_weights_of_lowest_validation_loss_are_returned_untrained() -> None:
    chosen, losses, candidates = choose(2)
    assert len(losses) == len(set(losses)) == 2
    assert_equal(chosen, candidates[int(np.argmin(losses))])


@pytest.mark.parametrize(("losses", "lowest"), [((2.0, 1.0, 3.0), 1), ((nan, 2.0, 3.0), 1), ((nan, nan, 3.0), 2)])
def test_a_loss_of_nan_is_never_the_lowest(
    losses: Sequence[float], lowest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(network: Classifier, *_: Any, **__: Any) -> None:
        network.set_weights([weight + 1 for weight in network.get_weights()])

    measured = iter(losses)
    monkeypatch.setattr(Classifier, "fit", fit)
    monkeypatch.setattr(Classifier, "evaluate", lambda *_, **__: (next(measured), 0.5))
    chosen, _, candidates = choose(3)
    assert_equal(chosen, candidates[lowest])


@pytest.mark.parametrize("batches", [Batches, EvaluationBatches])
def test_ctrl_c_stops_the_trials_after_the_batch(
    batches: type[keras.utils.PyDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    requested, batch_of = [], batches.__getitem__

    def interrupting(self: keras.utils.PyDataset, index: int) -> Any:
        if not requested:  # Keras asks for a first batch on the main thread
            requested.append(True)
            signal.raise_signal(signal.SIGINT)
        return batch_of(self, index)

    monkeypatch.setattr(batches, "__getitem__", interrupting)
    with pytest.raises(KeyboardInterrupt) as interruption:
        choose(2)
    assert "on_train_batch_end" in [entry.name for entry in interruption.traceback]
