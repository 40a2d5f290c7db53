"""Prints the errors of commands in one form, and the progress of long ones."""

import sys
import time

from pdeinfer.errors import ParityError
from pdeinfer.text import describe_seconds, one_line, printable

_SECONDS = 0.1  # between two lines of progress in a terminal, each in the place of the one before
_LOG_SECONDS = 30.0  # between two lines elsewhere


def print_error(error: Exception) -> None:
    """Print an error on stderr: on one line, but a report of differences with its table."""
    is_report = isinstance(error, ParityError)
    text = "\n".join(map(printable, str(error).splitlines())) if is_report else one_line(error)
    print("pdeinfer: error:", text, file=sys.stderr)


class Progress:
    """A line on stderr that counts what is done, with the rate and the time left.

    It is shown if stderr is a terminal and the results go elsewhere.

    Args:
        total: how many there are.
        unit: what they are.
        done: how many were done before.
        is_for_file: the results go to a file. Then the line is shown in any terminal, and logged now and then if stderr
            is none.
    """

    def __init__(self, total: int, unit: str, done: int = 0, *, is_for_file: bool = False) -> None:
        self._total = total
        self._unit = unit
        self._done = self._done_before = done
        self._start = self._shown = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = is_for_file or (self._is_terminal and not sys.stdout.isatty())

    def advance(self, count: int = 1) -> None:
        """Count one or several more."""
        self._done += count
        now = time.monotonic()
        if self._is_shown and now - self._shown >= (_SECONDS if self._is_terminal else _LOG_SECONDS):
            self._shown = now
            rate = (self._done - self._done_before) / (now - self._start)
            left = describe_seconds((self._total - self._done) / rate)
            line = f"{self._done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, {left} left"
            sys.stderr.write(f"\r{line}\x1b[K" if self._is_terminal else f"pdeinfer: {line}\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, before something else is printed on stderr and at the end."""
        if self._is_shown and self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
