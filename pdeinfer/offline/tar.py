"""Lists the images in a tar file, a shard in WebDataset's layout, without unpacking it."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from pdeinfer.errors import ImageError
from pdeinfer.images.damage import reading
from pdeinfer.images.formats import SUFFIXES

_MAX_HEADER_BYTES = 2**16  # of one member, with its long name and attributes
_MAX_END_BYTES = 2**20  # of zeros: a tape's record at most
_BLOCK = 512


class TarMember(NamedTuple):
    """An image in a tar file: its name, where its bytes begin, and how many there are.

    `offset` is None for a link or a sparse file, which has no such bytes.
    """

    name: str
    offset: int | None
    bytes: int


def list_images(path: str) -> Iterator[TarMember]:
    """Yield the members of a tar file whose names end like those of images; others, such as labels, are ignored.

    Raises:
        ImageError: the file is no uncompressed tar file, is damaged or cut off, or cannot be read. What was read before
            is intact.
        OSError: the system failed, e.g. with too many open files.
    """
    with reading(path, path, "an uncompressed tar file"), Path(path).open("rb") as file:
        headers = _Headers(file)
        try:
            with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]  # it has what is used
                end = 0
                while member := tar.next():
                    # Negative sizes would lead back to members that were read before.
                    if member.size < 0 or member.offset_data < end:
                        raise tarfile.ReadError("a member has an impossible size")
                    end = member.offset_data + (0 if member.issparse() else member.size)
                    if _is_image(member.name) and not member.isdir():
                        is_stored = member.isreg() and not member.issparse()
                        yield TarMember(member.name, member.offset_data if is_stored else None, member.size)
                    tar.members.clear()  # they would fill the memory
                    tar.pax_headers.clear()
                    headers.left = _MAX_HEADER_BYTES
                file.seek(tar.offset)
                if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
                    raise tarfile.ReadError("it is damaged or cut off")
                if _goes_on(file):
                    raise tarfile.ReadError("it goes on after its end; was it joined with cat?")
        except _LargeHeaderError as error:
            raise ImageError(f"{path}: expected an uncompressed tar file: {error}") from error
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as error:
            raise ImageError(f"{path}: expected an uncompressed tar file that is intact: {error}") from error


class _LargeHeaderError(tarfile.ReadError):
    """A member's header exceeds a limit of ours: the file may be intact."""


class _Headers:
    """A file from which tarfile reads headers: as few bytes for each member as it needs.

    Attributes:
        left: how many bytes may still be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _MAX_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header has an impossible size")
        if size > self.left:
            raise _LargeHeaderError(
                f"the name and attributes (pax headers) of a member take more than {_MAX_HEADER_BYTES // 1024} KiB: "
                "pack it without the attributes"
            )
        self.left -= size
        return self._file.read(size)


def _goes_on(file: BinaryIO) -> bool:
    """Return whether a member follows the blocks of zeros that end a tar file."""
    for _ in range(_MAX_END_BYTES // _BLOCK):
        if (block := file.read(_BLOCK)) != bytes(len(block)):
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                return False
            return True
        if not block:
            return False
    return False


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")  # macOS adds ._ files
