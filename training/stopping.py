"""Ends a training early, when its validation accuracy has stopped rising."""

from collections.abc import Sequence

import keras

from training.history import Row, has_stagnated


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

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del epoch, logs
        if has_stagnated(self.rows, self.patience):  # another callback may have stopped it already
            self.model.stop_training = True
