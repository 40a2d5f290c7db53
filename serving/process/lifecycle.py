"""What the supervisor and its workers agree on about starting and stopping; it imports nothing that serves."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeAlias

from pdeinfer.processes import safe_path
from serving.settings import Settings

CANNOT_START = 2

Started: TypeAlias = Callable[[], Awaitable[None]]


def seconds_to_drain(number: int, settings: Settings) -> float:
    """Return how long after a signal new connections are accepted."""
    if number == signal.SIGINT:  # Ctrl-C: there is no load balancer to wait for
        return 0
    return settings.drain_seconds


def seconds_to_stop(number: int, settings: Settings) -> float:
    """Return how long after a signal the requests in flight may take."""
    return settings.shutdown_timeout + seconds_to_drain(number, settings)


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop the server: SIGHUP among them, unless the server was started by nohup."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block stop signals in the processes started in this block, until they call `unblock_stop_signals`.

    Such a process may be sent them, as to all of a process group, long before it has handlers for them.
    """
    with safe_path():
        resource_tracker.ensure_running()  # starting it later would unblock signals
    former = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def unblock_stop_signals() -> None:
    """Get stop signals from now on, in this thread and in the processes that it starts."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
