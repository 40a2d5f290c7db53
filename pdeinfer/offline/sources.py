"""Lists what the sources hold, as chunks of work, in memory that does not grow with them."""

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pdeinfer.errors import ClassifyError, ImageError
from pdeinfer.images.damage import PATH_ERRORS
from pdeinfer.images.files import ImageFile, LeftOut, walk_folder, why_no_image
from pdeinfer.images.formats import SUFFIXES
from pdeinfer.images.sorting import sorted_names
from pdeinfer.offline.chunks import Chunk, DamagedChunk, FileChunk, ParquetChunk, TarChunk, stamp
from pdeinfer.offline.parquet import list_rows
from pdeinfer.offline.tar import TarMember, list_images
from pdeinfer.text import is_url

# Small enough that progress is steady and little is done twice, and large enough that a part costs little.
CHUNK_IMAGES = 256

_SEPARATORS = re.escape(os.sep + (os.altsep or ""))
_RECURSIVE = re.compile(rf"(?:^|(?<=[{_SEPARATORS}]))\*\*(?:[{_SEPARATORS}]+|$)")
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_OF_PROCESS = ("/dev/fd/", "/dev/stdin", "/proc/self/")  # what they mean depends on the process that opens them
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def list_chunks(
    sources: Sequence[str], leave_out: Callable[[LeftOut], None], is_own: Callable[[Path], bool] = lambda _: False
) -> Iterator[Chunk]:
    """Yield the images of the sources in chunks, in the order of the sources and, within each, of the names.

    Args:
        sources: files, folders, which are searched with those below them, tar files, Parquet files, and patterns of
            them as `glob` has them.
        leave_out: is told what is found in folders or fits a pattern, and is left out.
        is_own: whether a path is written by the run itself: it is passed over.

    Raises:
        ClassifyError: a source does not exist, is a URL, a folder without images, or a compressed tar file.
        MissingDependencyError: a source is a Parquet file, and pyarrow is missing.
        OSError: a source cannot be read.
    """

    def tell(found: LeftOut) -> None:
        if not is_own(found.path):
            leave_out(found)

    files: list[ImageFile] = []
    for found in (found for source in sources for found in _find(source, tell, is_own)):
        if isinstance(found, ImageFile):
            files.append(found)
        if files and (len(files) == CHUNK_IMAGES or not isinstance(found, ImageFile)):
            yield FileChunk(files)
            files = []
        if not isinstance(found, ImageFile):
            yield found
    if files:
        yield FileChunk(files)


def _find(
    source: str, leave_out: Callable[[LeftOut], None], is_own: Callable[[Path], bool]
) -> Iterator[ImageFile | Chunk]:
    """Yield the image files of a source, and the chunks of its tar and Parquet files."""
    is_there = os.path.lexists(source)
    if is_url(source) and not is_there:
        raise ClassifyError(f"{source}: expected a local path, got a URL: mount or download what it names")
    is_pattern = glob.has_magic(source) and not is_there
    path = None
    for path in _matches(source, leave_out, is_own) if is_pattern else (source,):
        try:
            status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError) as error:  # ValueError: a null character
            if is_pattern and (reason := why_no_image(Path(path))):
                leave_out(LeftOut(Path(path), reason))
                continue
            raise ClassifyError(f"{path}: expected a file, a folder or a pattern: {error}") from error
        if problem := _why_no_source(path, status.st_mode):
            if not is_pattern:
                raise ClassifyError(f"{path}: {problem}")
            leave_out(LeftOut(Path(path), problem))
            continue
        suffixes = path.lower()
        if stat.S_ISDIR(status.st_mode):
            yield from _find_in_folder(path, leave_out, is_pattern=is_pattern)
        elif suffixes.endswith(".tar"):
            yield from _unless_damaged(path, _tar_chunks(path), leave_out)
        elif suffixes.endswith(".parquet"):
            yield from _unless_damaged(path, _parquet_chunks(path), leave_out)
        elif suffixes.endswith(_COMPRESSED):
            raise ClassifyError(f"{path}: expected an uncompressed tar file: decompress it")
        else:
            yield ImageFile(path, status.st_size, status.st_mtime_ns)
    if path is None:
        raise ClassifyError(f"{source}: expected a pattern that fits a file, found none")


def _why_no_source(path: str, mode: int) -> str | None:
    """Return why other processes, perhaps later ones, cannot read a path, or None if they can."""
    if stat.S_ISFIFO(mode):
        return "expected a regular file, got a pipe: pdeinfer predict reads it"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "expected a regular file, got a device or a socket"
    if path.startswith(_OF_PROCESS):
        return "expected the name of a file, got that of a descriptor: only this process has it"
    return None


def _matches(pattern: str, leave_out: Callable[[LeftOut], None], is_own: Callable[[Path], bool]) -> Iterator[str]:
    """Yield the paths that fit a pattern, each once, sorted, but neither own ones nor those in a folder that fits."""
    folders: set[Path] = set()  # which are searched anyway
    told: set[Path] = set()  # each "*" and "**" may meet the same folder
    last = None

    def tell(found: LeftOut) -> None:
        if found.path not in told:
            told.add(found.path)
            leave_out(found)

    for path in sorted_names(_expand(pattern, tell)):
        if path == last or (folders and not folders.isdisjoint(Path(path).parents)) or is_own(Path(path)):
            continue
        if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if it may not look
            folders.add(Path(path))
        last = path
        yield path


def _expand(pattern: str, leave_out: Callable[[LeftOut], None]) -> Iterator[str]:
    """Yield the paths that fit a pattern; unlike that of `glob`, "**" follows no links, which may lead in circles."""
    found = _RECURSIVE.search(pattern)
    if found is None:
        yield from _glob(pattern, leave_out)
        return
    start, rest = pattern[: found.start()], pattern[found.end() :]
    for top in _glob(start, leave_out) if start else ("",):
        if not rest:
            yield top or os.curdir
            continue
        for folder in _folders(top, leave_out):
            yield from _expand(os.path.join(glob.escape(folder), rest), leave_out)  # noqa: PTH118


def _glob(pattern: str, leave_out: Callable[[LeftOut], None]) -> Iterator[str]:
    """Yield the paths that fit a pattern without "**"; `glob` tells of no folder that may not be read."""
    start, last = os.path.split(pattern)
    is_open = glob.has_magic(last)
    for folder in _glob(start, leave_out) if glob.has_magic(start) and start != pattern else (start,):
        try:
            if is_open:
                with os.scandir(folder or os.curdir) as entries:
                    yield from (os.path.join(folder, entry.name) for entry in entries if _fits(entry.name, last))  # noqa: PTH118
            else:
                path = os.path.join(folder, last)  # noqa: PTH118
                os.lstat(path)
                yield path
        except OSError as error:
            if error.errno not in PATH_ERRORS:
                raise
            if error.errno in _FORBIDDEN:  # the others: it is no folder, or has no such file
                leave_out(LeftOut(Path(folder), f"cannot be read: {error.strerror}"))


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatch(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _folders(top: str, leave_out: Callable[[LeftOut], None]) -> Iterator[str]:
    """Yield a folder and those below it, without hidden ones and links."""
    folders = [top]
    while folders:
        folder = folders.pop()
        yield folder
        try:
            names = os.listdir(folder or os.curdir)  # noqa: PTH208
        except OSError as error:
            if error.errno not in PATH_ERRORS:
                raise
            leave_out(LeftOut(Path(folder), f"cannot be read: {error.strerror}"))
            continue
        for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):  # noqa: PTH118
            if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises for a link to itself
                continue
            if os.path.islink(path):  # noqa: PTH114
                leave_out(LeftOut(Path(path), "a link to a folder"))
            else:
                folders.append(path)


def _find_in_folder(folder: str, leave_out: Callable[[LeftOut], None], *, is_pattern: bool) -> Iterator[ImageFile]:
    is_empty = True
    try:
        for found in walk_folder(folder, recursive=True):
            if isinstance(found, LeftOut):
                leave_out(found)
            else:
                is_empty = False
                yield found
    except OSError as error:
        if not is_pattern or error.errno not in PATH_ERRORS:
            raise
        leave_out(LeftOut(Path(folder), f"cannot be read: {error.strerror}"))
        return
    if is_empty and is_pattern:
        leave_out(LeftOut(Path(folder), "a folder without images", files=0))
    elif is_empty:
        raise ClassifyError(f"{folder}: expected a folder of images ({' '.join(SUFFIXES)}), found none")


def _unless_damaged(path: str, chunks: Iterator[Chunk], leave_out: Callable[[LeftOut], None]) -> Iterator[Chunk]:
    """Yield the chunks of a file, and one for the error if it is damaged."""
    is_empty = True
    try:
        for chunk in chunks:
            is_empty = False
            yield chunk
    except ImageError as error:
        yield DamagedChunk(path, str(error))
    else:
        if is_empty:
            leave_out(LeftOut(Path(path), "it holds no images"))


def _tar_chunks(path: str) -> Iterator[Chunk]:
    current = stamp(path)
    members: list[TarMember] = []
    problem = None
    try:
        for member in list_images(path):
            members.append(member)
            if len(members) == CHUNK_IMAGES:
                yield TarChunk(path, current, members)
                members = []
    except ImageError as error:
        problem = error
    if members:  # those before the damage
        yield TarChunk(path, current, members)
    if problem:
        raise problem


def _parquet_chunks(path: str) -> Iterator[Chunk]:
    current = stamp(path)
    return (ParquetChunk(path, current, rows) for rows in list_rows(path))
