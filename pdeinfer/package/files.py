"""Opens the files of a package: regular files only, named inside one open folder."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

# From the name of a file in a folder to its content; the second argument is the largest size in bytes.
Read: TypeAlias = Callable[[str, int], bytes]

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def open_regular(path: str | Path, folder: int | None = None) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, and yield it with its size in bytes. A pipe is refused at once, not waited for.

    Args:
        path: the file's.
        folder: the descriptor of an open folder that `path` is relative to.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, _FLAGS, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size
    finally:
        os.close(descriptor)


@contextmanager
def open_folder(path: Path) -> Iterator[Read]:
    """Yield a function that reads files of one folder, even if the path soon names another folder.

    The function raises OSError as `open_regular` does, and if a file is too large.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY) if os.open in os.supports_dir_fd else None  # not on Windows

    def read(name: str, max_bytes: int) -> bytes:
        with open_regular(name if folder is not None else path / name, folder) as (file, size):
            if size > max_bytes:
                raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, got {size}", name)
            return file.read(size)

    try:
        yield read
    finally:
        if folder is not None:
            os.close(folder)
