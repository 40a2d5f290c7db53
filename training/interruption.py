"""Makes Ctrl-C stop a training between batches, where it is safe."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import keras


class StopAfterBatch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Raise KeyboardInterrupt at the end of a batch once `requested` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        del batch, logs
        if self.requested:
            raise KeyboardInterrupt

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.on_train_batch_end(batch, logs)


@contextmanager
def interrupted_between_batches() -> Iterator[StopAfterBatch]:
    """Yield the callback by which Ctrl-C stops a training between batches; a second Ctrl-C stops it at once.

    By default Python raises KeyboardInterrupt at any point. Inside a function that TensorFlow called, TensorFlow may
    swallow it and train on. A process that was started to ignore Ctrl-C goes on ignoring it.
    """
    callback = StopAfterBatch()
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if is_ignored or threading.current_thread() is not threading.main_thread():  # only that thread receives signals
        yield callback
        return

    def request(number: int, frame: FrameType | None) -> None:
        del number, frame
        if callback.requested:
            raise KeyboardInterrupt
        callback.requested = True

    before = signal.signal(signal.SIGINT, request)
    try:
        yield callback
    finally:
        signal.signal(signal.SIGINT, before)
