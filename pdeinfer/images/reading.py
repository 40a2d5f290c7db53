"""Reads image files as a whole, up to a limit of bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pdeinfer.errors import ImageError
from pdeinfer.images.damage import AnyPath, opening, reading
from pdeinfer.images.limits import MAX_FILE_BYTES, file_too_large

_PART_BYTES = 2**20


@contextmanager
def open_path(path: AnyPath, name: str) -> Iterator[BinaryIO]:
    """Open a file for the `with` block, which does nothing but read it.

    Raises:
        ImageError: the path is missing, unsuitable or forbidden, or the file cannot be read; `name` is what the error
            calls it.
        OSError: the machine is to blame, e.g. with too many open files; the error has the path.
    """
    if not os.fsdecode(path):
        raise ImageError("expected the path of an image, got ''")
    with reading(path, name):
        with opening(name):
            file = Path(os.fsdecode(path)).open("rb")  # noqa: SIM115  # closed below
        with file:
            yield file


def read_file(file: BinaryIO, name: str) -> bytes:
    """Return all bytes of a file, or those of a pipe from here on.

    Raises:
        ImageTooLargeError: there are more than `MAX_FILE_BYTES`.
    """
    if not file.seekable():
        return read_stream(file, name)
    size = file.seek(0, os.SEEK_END)
    if size > MAX_FILE_BYTES:
        raise file_too_large(name, size)
    file.seek(0)
    return file.read(size)


def read_stream(file: BinaryIO, name: str) -> bytes:
    """Return the bytes of a file object from here on.

    Raises:
        ImageTooLargeError: there are more than `MAX_FILE_BYTES`.
        ImageError: it reads something other than bytes.
    """
    parts: list[bytes | bytearray | memoryview] = []
    size = 0
    while True:
        part = file.read(_PART_BYTES)
        if not isinstance(part, bytes | bytearray | memoryview):
            raise ImageError(f"{name}: expected a binary file object, got one that reads {type(part).__name__}")
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > MAX_FILE_BYTES:
            raise file_too_large(name)
