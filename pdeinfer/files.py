"""Writes files that nobody sees half written, and tables."""

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        sync_file(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Return once the content of a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return once the names in a folder are on the disk, where the system can tell: Windows opens no folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to the system's errors that have none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def csv_table(file: TextIO) -> Any:
    """Return a `csv.writer` whose lines end with a line feed."""
    return csv.writer(_LineFeeds(file))


class _LineFeeds:
    """With a line feed as its own terminator, `csv.writer` leaves a carriage return in a field unquoted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")
