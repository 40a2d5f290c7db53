"""Ctrl-C during a training."""

import signal
from collections.abc import Iterator

import pytest

from training.interruption import interrupted_between_batches


@pytest.fixture
def ignored() -> Iterator[None]:
    """Ignore Ctrl-C, as a shell does for a process in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_between_batches() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupted_between_batches() as callback:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            callback.on_train_batch_end(0)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait_for_the_batch_to_end() -> None:
    with interrupted_between_batches():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("ignored")
def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    with interrupted_between_batches() as callback:
        signal.raise_signal(signal.SIGINT)
        callback.on_train_batch_end(0)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
