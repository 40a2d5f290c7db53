"""`--callback MODULE:NAME`."""

from pathlib import Path

import keras
import pytest

from pdeinfer.errors import TrainingError
from training.callbacks import load_callback


def test_a_callback_of_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracking_of_this_test.py").write_text(
        "import keras\n\n\ndef make():\n    return keras.callbacks.LambdaCallback()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_callback("tracking_of_this_test:make"), keras.callbacks.Callback)
    assert isinstance(load_callback("keras:callbacks.History"), keras.callbacks.History)


NEEDS_ARGUMENTS = "keras:callbacks.ModelCheckpoint"


@pytest.mark.parametrize(
    "reference",
    ["no_such_module_at_all:x", "keras:no_such_name", "collections:Counter", "keras:__version__", NEEDS_ARGUMENTS],
)
def test_what_is_no_callback_is_named(reference: str) -> None:
    with pytest.raises(TrainingError, match=reference):
        load_callback(reference)


def test_a_module_that_the_callback_misses_is_named() -> None:
    with pytest.raises(TrainingError, match=f"{__name__}:make_importing: No module named 'no_such_tracker'"):
        load_callback(f"{__name__}:make_importing")


def make_importing() -> keras.callbacks.Callback:
    import no_such_tracker

    return no_such_tracker.callback()


@pytest.mark.parametrize("reference", ["keras:callbacks.ReduceLROnPlateau", f"{__name__}:make_scheduler"])
def test_a_callback_that_would_set_the_learning_rate_is_refused(reference: str) -> None:
    with pytest.raises(TrainingError, match=f"{reference}: .* --lr changes its peak"):
        load_callback(reference)


def make_scheduler() -> keras.callbacks.LearningRateScheduler:
    return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / epoch)
