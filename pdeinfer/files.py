"""Writes files that nobody sees half written, and tables."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path`, then rename it: `path` holds the old content or the whole new one.

    The new content is on the disk before it is renamed, so this also holds after a power cut. A link, a pipe or a
    device is written directly, and stays one.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        write(path)
        return
    partial = path.with_name(f"partial-{path.name}")
    try:
        write(partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def csv_table(file: TextIO) -> Any:
    """Return a `csv.writer` whose lines end with a line feed."""
    return csv.writer(_LineFeeds(file))


class _LineFeeds:
    """With a line feed as its own terminator, `csv.writer` leaves a carriage return in a field unquoted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")
