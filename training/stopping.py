"""Ends a training early, when its validation accuracy has stopped rising."""

from collections.abc import Sequence

import keras

from training.history import Row


class StopEarly(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Stop after an epoch if the best validation accuracy was first reached `patience` epochs ago.

    It keeps no state of its own, unlike `keras.callbacks.EarlyStopping`: a resumed training stops where an
    uninterrupted one would.

    Args:
        rows: the history, to which another callback appends each epoch before this one is called.
        patience: None: never stop.
    """

    def __init__(self, rows: Sequence[Row], patience: int | None) -> None:
        super().__init__()
        self.rows = rows
        self.patience = patience

    def is_due(self) -> bool:
        """Return whether the training is to stop after the epochs in the history."""
        if self.patience is None or not self.rows:
            return False
        best = max(self.rows, key=lambda row: row["val_accuracy"])  # the first of equal ones
        return len(self.rows) - best["epoch"] >= self.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del epoch, logs
        if self.is_due():  # another callback may have stopped it already
            self.model.stop_training = True
