"""Writes files and folders that nobody sees half written, and tables."""

import csv
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

# Errors of the file system that name no file: no space, a file too large, no quota (which Windows does not have).
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that takes the place of `path` when it is complete, as `replacing` does.

    A link, a pipe or a device is written directly, and stays one.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with naming(path):
            write(path)
        return
    with replacing(path) as partial:
        write(partial)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, for the block to write a file that takes its place: nobody sees it half written.

    Its content is on the disk before it is renamed, so this also holds after a power cut. Errors of the system name
    `path`. The file is hidden, as it may be in a folder of images. Its suffix is that of `path`: some writers take the
    format from it. A process that is killed leaves it: `.partial-`, eight hexadecimal digits and the suffix.
    """
    partial = path.with_name(f".partial-{secrets.token_hex(4)}{path.suffix}")  # short: `path` may have 255 bytes
    try:
        yield partial
        sync_file(partial)
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # after success it is gone; after an error, that one counts
            partial.unlink()


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


def is_same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Return whether two paths name one file that exists."""
    try:
        return os.path.samefile(first, second)  # noqa: PTH121
    except (OSError, ValueError):  # ValueError: a null character
        return False


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, links followed, is a folder or lies in it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@contextmanager
def new_folder(output: str | Path, marker: str, error_class: type[Exception], *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `output`, and rename it to `output` when the block ends.

    If the block raises, the temporary folder is removed and an existing folder at `output` stays as it was.

    Args:
        output: the folder.
        marker: a file that the block writes, and that a folder must hold to be replaced.
        error_class: of the errors that this raises.
        force: replace an existing folder, except files and folders in it whose names begin with a dot.

    Raises:
        error_class: `output` exists and `force` is false; or it neither has the marker nor is an empty folder,
            which even `force` does not replace; or it cannot be written.
    """
    output = Path(os.path.realpath(output))  # Path.resolve raises RuntimeError for a link to itself before 3.13
    if not output.name:
        raise error_class(f"{output} cannot be written: expected a folder inside another")
    token = secrets.token_hex(4)
    folder = output.with_name(f".{output.name}.{token}.new")
    with _writing(output, error_class):
        _check_free(output, marker, error_class, force=force)
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    try:
        with _writing(output, error_class, _NO_ROOM):
            yield folder
        if not (folder / marker).is_file():
            raise error_class(f"expected a {marker} for {output}, but none was written")
        with _writing(output, error_class):
            _check_free(output, marker, error_class, force=force)
            _move(folder, output, aside=output.with_name(f".{output.name}.{token}.old"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(output: Path, error_class: type[Exception], codes: Collection[int] | None = None) -> Iterator[None]:
    """Raise `error_class` in place of an OSError, or only of those whose `errno` is among `codes`."""
    try:
        yield
    except OSError as error:
        if codes is not None and error.errno not in codes:
            raise
        raise error_class(f"{output} cannot be written: {error.strerror}") from error


def _check_free(output: Path, marker: str, error_class: type[Exception], *, force: bool) -> None:
    """Raise `error_class` unless a new folder may be written to `output`."""
    if not output.exists():
        return
    if not force:
        raise error_class(f"{output} exists already: force=True, or --force, replaces it")
    if not output.is_dir() or (not (output / marker).is_file() and any(output.iterdir())):
        raise error_class(f"{output} exists and is not a folder with a {marker}: remove it first")


def _move(folder: Path, output: Path, aside: Path) -> None:
    """Rename `folder` to `output`; restore the old content of `output` on failure, remove it on success.

    Names that begin with a dot stay: a package may be in a git repository.
    """
    if not output.exists():
        folder.rename(output)
        return
    output.rename(aside)
    try:
        folder.rename(output)
    except BaseException:
        aside.rename(output)
        raise
    for hidden in aside.glob(".*"):
        hidden.rename(output / hidden.name)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to the system's errors that have none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # without a number, its message is not the system's, and a path would hide it
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
