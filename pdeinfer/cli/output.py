"""Prints errors in one form for all commands, and the progress of long ones."""

import sys
import time

_SECONDS = 0.1  # between two lines of progress


def print_error(error: Exception) -> None:
    """Print an error on stderr, on one line."""
    print("pdeinfer: error:", " ".join(str(error).splitlines()), file=sys.stderr)


class Progress:
    """A line on stderr that counts what is done, shown if it is a terminal and the results go elsewhere.

    Args:
        total: how many there are.
        unit: what they are.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._is_shown = sys.stderr.isatty() and not sys.stdout.isatty()

    def advance(self) -> None:
        """Count one more."""
        self._done += 1
        now = time.monotonic()
        if self._is_shown and now - self._shown >= _SECONDS:
            self._shown = now
            seconds = round((now - self._start) / self._done * (self._total - self._done))
            left = f"{seconds // 60}:{seconds % 60:02} left"
            sys.stderr.write(f"\r{self._done:,} of {self._total:,} {self._unit}, {left}\x1b[K")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, before something else is printed on stderr and at the end."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
