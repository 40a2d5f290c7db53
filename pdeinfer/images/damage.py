"""Tells damaged images from failures of the machine and from bugs."""

import errno
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import PIL.Image

from pdeinfer.errors import ImageError, ImageTooLargeError, PdeinferError
from pdeinfer.images.formats import EXPECTED

# What Pillow raises for damaged and hostile files, apart from OSError without a number.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error),
)
# Error numbers of a path that cannot be an image or a folder.
PATH_ERRORS = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO),
)
# Error numbers that concern the machine, not the file that is read: no memory, too many open files, and a file system
# whose program has ended.
MACHINE_ERRORS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOTCONN)

ErrorT = TypeVar("ErrorT", bound=PdeinferError)
AnyPath: TypeAlias = str | os.PathLike[str] | os.PathLike[bytes]


def without_frames(error: ErrorT) -> ErrorT:
    """Return an error to be kept, without traceback and causes: their frames hold the image and its file."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


@contextmanager
def decoding(name: str, kind: str | None, max_pixels: int) -> Iterator[None]:
    """Turn Pillow's errors for a damaged file into an ImageError; the body must call nothing but Pillow.

    Args:
        name: the image's name in errors.
        kind: its format, in words.
        max_pixels: the limit, for the error.
    """
    try:
        yield
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError) as error:
        raise ImageTooLargeError(f"{name}: expected at most {max_pixels} pixels: {error}") from error
    except (OSError, *_DAMAGE) as error:
        if not is_damage(error):
            raise
        is_unknown = isinstance(error, PIL.UnidentifiedImageError)
        reason = "" if is_unknown else f" ({str(error) or type(error).__name__})"
        raise _damaged(name, kind, reason) from error
    except RuntimeError as error:
        if kind not in ("AVIF", "HEIF"):  # whose plugins raise it
            raise
        raise _damaged(name, kind, f" ({error})") from error


@contextmanager
def refusing_warnings(name: str) -> Iterator[None]:
    """Turn a warning of Pillow's that the application has made an error into an ImageError that says so."""
    try:
        yield
    except UserWarning as error:
        raise ImageError(
            f"{name}: expected {EXPECTED}, got one of which Pillow warns, while warnings are errors: {error}"
        ) from error


def is_damage(error: Exception) -> bool:
    """Return whether Pillow's error concerns the file that it reads, and neither the machine nor a bug."""
    if isinstance(error, TimeoutError | ConnectionError | InterruptedError):
        return False  # of the file's reader, or of a signal's handler
    if isinstance(error, OSError):
        return error.errno in (None, errno.EINVAL)  # EINVAL: a place beyond the file
    return isinstance(error, _DAMAGE)


def _damaged(name: str, kind: str | None, reason: str) -> ImageError:
    return ImageError(f"{name}: expected {EXPECTED}, got a damaged or unsupported {kind}{reason}")


@contextmanager
def opening(name: str, expected: str = EXPECTED) -> Iterator[None]:
    """Turn the system's error for a missing, unsuitable or forbidden path into an ImageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in PATH_ERRORS:
            raise
        raise ImageError(f"{name}: expected {expected}: {error.strerror}") from error
    except ValueError as error:  # a null character
        raise ImageError(f"{name}: expected a path: {error}") from error


@contextmanager
def reading(path: AnyPath, name: str, expected: str = EXPECTED) -> Iterator[None]:
    """Turn the system's error for a file that cannot be opened or read into an ImageError; name the path in others."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in MACHINE_ERRORS:
            error.filename = error.filename or os.fsdecode(path)
            raise
        raise ImageError(f"{name}: expected {expected}: {error.strerror}") from error


def is_unreadable(error: Exception) -> bool:
    """Return whether an exception of a caller's file object concerns that file alone, as one of a damaged archive does.

    It is, or derives from, one of the standard library's, such as `zipfile.BadZipFile`. Any other may be that of a
    signal's handler, as a TimeoutError and a timeout's AssertionError may be.
    """
    if isinstance(error, AssertionError | InterruptedError | MemoryError | TimeoutError):
        return False
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        return False
    kinds = (kind for kind in type(error).__mro__ if issubclass(kind, Exception) and kind is not Exception)
    return any(kind.__module__.partition(".")[0] in sys.stdlib_module_names for kind in kinds)
