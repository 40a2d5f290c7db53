"""Early stopping, from the history alone."""

import math
from types import SimpleNamespace

import pytest

from training.history import Row, has_stagnated
from training.stopping import StopEarly


def history(*accuracies: float) -> list[Row]:
    return [{"epoch": epoch, "val_accuracy": value} for epoch, value in enumerate(accuracies, start=1)]


@pytest.mark.parametrize(
    ("accuracies", "due"),
    [
        ((), False),
        ((0.5, 0.6, 0.6), False),  # one epoch without an improvement
        ((0.5, 0.6, 0.6, 0.6), True),
        ((0.5, 0.6, 0.5, 0.7), False),
        ((0.9, 0.1, 0.2), True),
    ],
)
def test_a_training_stops_when_the_best_epoch_is_two_epochs_old(accuracies: tuple[float, ...], *, due: bool) -> None:
    assert has_stagnated(history(*accuracies), patience=2) is due


def test_a_stop_that_another_callback_asked_for_stays() -> None:
    callback = StopEarly(history(0.9), patience=None)
    callback.set_model(SimpleNamespace(stop_training=True))
    callback.on_epoch_end(0)
    assert callback.model.stop_training is True


def test_without_patience_a_training_never_stops() -> None:
    assert has_stagnated(history(0.9, *[0.1] * 50), patience=None) is False
    assert has_stagnated(history(math.nan, math.nan), patience=None) is False
