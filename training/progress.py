"""Shows the progress of a training in a terminal: a line for each epoch, and one that counts the time left."""

import sys
import time

import keras

from pdeinfer.text import describe_seconds

_SECONDS = 0.2  # between two updates
_WIDTH = 24  # of the bar


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Print to a terminal; between epochs the last line is a bar over the whole training with the time left."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        del logs
        self.epochs: int = self.params["epochs"]
        self.start = self.shown = time.monotonic()
        self.first: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del logs
        self.epoch = epoch
        self.first = epoch if self.first is None else self.first

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        if self.first is None or now - self.shown < _SECONDS:
            return
        self.shown = now
        share = (batch + 1) / self.params["steps"]
        done, total = self.epoch - self.first + share, self.epochs - self.first
        bar = "#" * round(_WIDTH * (self.epoch + share) / self.epochs)
        accuracy = f", accuracy {logs['accuracy']:.3f}" if logs and "accuracy" in logs else ""
        left = describe_seconds((now - self.start) / done * (total - done))
        sys.stdout.write(f"\r[{bar:<{_WIDTH}}] epoch {self.epoch + 1} of {self.epochs}{accuracy}, {left} left\x1b[K")
        sys.stdout.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        validated = f", validation {logs['val_accuracy']:.3f}" if "val_accuracy" in logs else ""
        line = (
            f"epoch {epoch + 1:3} of {self.epochs}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}{validated}"
        )
        sys.stdout.write(f"\r{line}\x1b[K\n")
        sys.stdout.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        del logs
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
