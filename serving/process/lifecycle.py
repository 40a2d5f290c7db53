"""What the supervisor and its workers agree on about starting and stopping; it imports nothing that serves."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeAlias

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
