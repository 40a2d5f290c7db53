"""What a terminal shows of a training."""

import pytest

from training import progress
from training.progress import Progress


def test_a_line_an_epoch_and_a_bar_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar = Progress()
    bar.set_params({"epochs": 4, "steps": 10})
    bar.on_train_begin()
    bar.on_epoch_begin(2)  # resumed after two epochs
    now = 105.0
    bar.on_train_batch_end(4, {"accuracy": 0.5})
    assert "[###############         ] epoch 3 of 4, accuracy 0.500, 0:15 left" in capsys.readouterr().out
    bar.on_train_batch_end(5, {"accuracy": 0.5})  # too soon for another update
    assert capsys.readouterr().out == ""
    bar.on_epoch_end(2, {"loss": 0.25, "accuracy": 0.5, "val_accuracy": 0.75})
    assert "epoch   3 of 4: loss 0.250, accuracy 0.500, validation 0.750\x1b[K\n" in capsys.readouterr().out
