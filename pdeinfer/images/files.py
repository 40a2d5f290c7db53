"""Finds the image files in a folder, and lists everything else in it with the reason."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pdeinfer.errors import ImageError
from pdeinfer.images.damage import MACHINE_ERRORS, PATH_ERRORS, AnyPath, opening
from pdeinfer.images.formats import HEAD_BYTES, SUFFIXES, describe_foreign, is_surely_image, recognise
from pdeinfer.images.sorting import sorted_names
from pdeinfer.text import counted, printable

_MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in a folder that is not taken as an image.

    Attributes:
        path: the file, link or folder.
        reason: why not, and what to do about it.
        files: the number of files: 1, also for a link, or those in the folder.
    """

    path: Path
    reason: str
    files: int = 1

    def __str__(self) -> str:
        return f"left out: {printable(str(self.path))}: {self.reason}"


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The image files of a folder, sorted, and everything else in it. Names that begin with a dot are ignored.

    Attributes:
        images: files with a suffix of `SUFFIXES`, and files whose first bytes are those of a GIF, JPEG, PNG or WEBP.
        left_out: all others.
    """

    images: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def find_image_files(folder: AnyPath, *, recursive: bool = False) -> FoundFiles:
    """Find the image files in a folder; they are not decoded.

    Args:
        folder: its path.
        recursive: also take the files in its subfolders. Links to folders are not followed.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    if not os.fsdecode(folder):
        raise ImageError("expected the path of a folder, got ''")
    folder = Path(os.fsdecode(folder))
    with opening(str(folder), "a folder of images"):
        found = scan_folder(folder, recursive=recursive)
    if not found.images:
        left_out = "".join(f"; {line}" for line in describe_left_out(found.left_out))
        raise ImageError(f"{folder}: expected a folder of images ({' '.join(SUFFIXES)}), found none{left_out}")
    return found


def scan_folder(folder: Path, *, recursive: bool = False) -> FoundFiles:
    """Find the image files in a folder like `find_image_files`, but accept a folder without any.

    Raises:
        OSError: the folder cannot be read.
    """
    images: list[Path] = []
    left_out: list[LeftOut] = []
    for found in walk_folder(folder, recursive=recursive):
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            images.append(Path(found.path))
    return FoundFiles(tuple(images), tuple(left_out))


class ImageFile(NamedTuple):
    """An image file in a folder: its path, its size in bytes, and when it was last changed, in ns."""

    path: str
    bytes: int
    changed_ns: int


def walk_folder(folder: str | os.PathLike[str], *, recursive: bool = False) -> Iterator[ImageFile | LeftOut]:
    """Yield what `scan_folder` finds, in order, in memory that does not grow with the number of files.

    Raises:
        OSError: the folder cannot be read.
    """
    open_folders = [(folder, _content(folder))]  # each inside the one before it
    while open_folders:
        parent, paths = open_folders[-1]
        try:
            path = next(paths, None)
        except OSError as error:
            if len(open_folders) == 1 or error.errno not in PATH_ERRORS:
                raise
            yield LeftOut(Path(parent), f"cannot be read: {error.strerror}")
            path = None
        if path is None:
            open_folders.pop()
            continue
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            found = None
        if found and stat.S_ISDIR(found.st_mode):
            if os.path.islink(path):  # noqa: PTH114
                yield LeftOut(Path(path), "a link to a folder")
            elif recursive:
                open_folders.append((path, _content(path)))
            else:
                yield _leave_folder(Path(path))
        elif found and stat.S_ISREG(found.st_mode) and os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122
            yield ImageFile(path, found.st_size, found.st_mtime_ns)
        elif reason := why_no_image(Path(path)):
            yield LeftOut(Path(path), reason)
        elif found:
            yield ImageFile(path, found.st_size, found.st_mtime_ns)


def _content(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the paths in a folder, sorted by name, without hidden names."""
    with os.scandir(folder) as entries:
        names = sorted_names(entry.name for entry in entries if not entry.name.startswith("."))
        yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118  # Path is slower


def visible(folder: Path) -> list[Path]:
    """Return the content of a folder, sorted by name, without hidden names: macOS writes such files next to images."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def why_no_image(path: Path) -> str | None:
    """Return why a file is not taken as an image, or None if it is."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a regular file"
        if path.suffix.lower() in SUFFIXES:
            return None
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        return "a broken link"
    except OSError as error:
        if error.errno in MACHINE_ERRORS:
            raise
        return f"cannot be read: {error.strerror}"
    if is_surely_image(head):
        return None
    suffix = path.suffix or "no suffix"
    return f"not named as an image ({suffix})" if recognise(head) else describe_foreign(head)


def find_repeats(files: Sequence[Path]) -> dict[Path, LeftOut]:
    """Return the links among files whose target is there too, as a file or as the target of an earlier link."""
    links = [file for file in files if file.is_symlink()]
    if not links:
        return {}
    linked = set(links)
    first = {os.path.realpath(file): file for file in files if file not in linked}
    repeats = {}
    for link in links:
        file = first.setdefault(os.path.realpath(link), link)
        if file != link:
            repeats[link] = LeftOut(link, f"a link to the image of {printable(str(file))}")
    return repeats


def _leave_folder(path: Path) -> LeftOut:
    files = count_files(path)
    return LeftOut(path, f"a folder of {counted(files, 'file')}", files)


def count_files(folder: Path) -> int:
    """Return the number of files in a folder and those below it, without hidden ones and links to folders."""
    count, folders = 0, [str(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not os.path.isdir(entry.path):  # noqa: PTH112  # Path.is_dir raises for a link to itself
                    count += 1
    return count


def describe_left_out(left_out: Iterable[LeftOut]) -> list[str]:
    """Return lines that name the first entries left out, with the reasons, and count the files of all."""
    left_out = list(left_out)
    lines = [str(each) for each in left_out[:_MAX_NAMED]]
    if len(left_out) > _MAX_NAMED:
        lines.append(f"left out: {len(left_out) - _MAX_NAMED:,} more")
    if left_out:
        lines.append(f"files left out in all: {sum(each.files for each in left_out):,}")
    return lines
