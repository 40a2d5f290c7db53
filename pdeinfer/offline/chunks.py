"""Chunks of work: images that are classified together, where they are and how they are read."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, TypeAlias

from pdeinfer.errors import ClassifyError, ImageError
from pdeinfer.images.damage import reading, without_frames
from pdeinfer.images.limits import MAX_FILE_BYTES, file_too_large
from pdeinfer.offline.parquet import ParquetRows, read_rows
from pdeinfer.offline.tar import TarMember

# The name of an image, and its path, its bytes, or why there are none.
NamedImage: TypeAlias = tuple[str, str | bytes | ImageError]
# The size of a file and when it was last changed.
Stamp: TypeAlias = tuple[int, int]


class FileChunk(NamedTuple):
    """Image files: the path, the size in bytes and the time of the last change, in ns, of each."""

    files: Sequence[tuple[str, int, int]]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.files)

    def names(self) -> Iterator[str]:
        """Yield the names of the images."""
        return (path for path, *_ in self.files)

    def read(self) -> Iterator[NamedImage]:
        """Yield the images."""
        return ((path, path) for path in self.names())


class TarChunk(NamedTuple):
    """Images in a tar file, named "shard.tar/key.jpg"."""

    path: str
    stamp: Stamp
    members: Sequence[TarMember]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(self.members)

    def names(self) -> Iterator[str]:
        """Yield the names of the images."""
        return (f"{self.path}/{name}" for name, *_ in self.members)

    def read(self) -> Iterator[NamedImage]:
        """Yield the images; raise ClassifyError if the file has changed."""
        check_stamp(self.path, self.stamp)
        with open(self.path, "rb") as file:  # noqa: PTH123
            for name, (_, offset, size) in zip(self.names(), self.members, strict=True):
                if offset is None:
                    yield name, ImageError(f"{name}: expected a file, got a link or a sparse file")
                elif size > MAX_FILE_BYTES:
                    yield name, file_too_large(name, size)
                else:
                    yield name, _read_member(file, name, offset, size, self.path)


def _read_member(file: BinaryIO, name: str, offset: int, size: int, path: str) -> bytes | ImageError:
    try:
        with reading(path, name):
            file.seek(offset)
            return file.read(size)
    except ImageError as error:
        return without_frames(error)


class ParquetChunk(NamedTuple):
    """Rows of a Parquet file, named "file.parquet/ROW", counted from 0."""

    path: str
    stamp: Stamp
    rows: ParquetRows

    @property
    def images(self) -> int:
        """The number of images."""
        return self.rows.stop - self.rows.start

    def names(self) -> Iterator[str]:
        """Yield the names of the images."""
        first = self.rows.first
        return (f"{self.path}/{row}" for row in range(first + self.rows.start, first + self.rows.stop))

    def read(self) -> Iterator[NamedImage]:
        """Yield the images; raise ClassifyError if the file has changed."""
        check_stamp(self.path, self.stamp)
        names = self.names()
        try:
            for content in read_rows(self.path, self.rows):
                name = next(names)
                if content is None:
                    yield name, ImageError(f"{name}: expected the bytes of an image, got null")
                elif len(content) > MAX_FILE_BYTES:
                    yield name, file_too_large(name, len(content))
                else:
                    yield name, content
        except ImageError as error:
            yield from ((name, error) for name in names)


class DamagedChunk(NamedTuple):
    """A file of images that cannot be read, or cannot be read to its end: one row with an error."""

    path: str
    problem: str

    @property
    def images(self) -> int:
        """1: the row of the error."""
        return 1

    def names(self) -> Iterator[str]:
        """Yield the path."""
        return iter((self.path,))

    def read(self) -> Iterator[NamedImage]:
        """Yield the error."""
        return iter(((self.path, ImageError(self.problem)),))


Chunk: TypeAlias = FileChunk | TarChunk | ParquetChunk | DamagedChunk

_KINDS: dict[str, type[Chunk]] = {kind.__name__: kind for kind in (FileChunk, TarChunk, ParquetChunk, DamagedChunk)}


def to_line(chunk: Chunk) -> str:
    """Return a chunk as a line of JSON."""
    return json.dumps([type(chunk).__name__, *chunk]) + "\n"


def from_line(line: str) -> Chunk:
    """Return the chunk that `to_line` has written."""
    kind, *values = json.loads(line)
    if kind == ParquetChunk.__name__:
        values[-1] = ParquetRows(*values[-1])
    return _KINDS[kind](*values)


def stamp(path: str) -> Stamp:
    """Return the size of a file and when it was last changed."""
    found = os.stat(path)  # noqa: PTH116
    return found.st_size, found.st_mtime_ns


def check_stamp(path: str, expected: Stamp) -> None:
    """Raise ClassifyError if a file has changed."""
    if stamp(path) != tuple(expected):
        raise ClassifyError(f"{path} has changed since it was listed: restore it, or start again")
