"""Reads the markers of JPEG files: rejects expensive files, and ends them such that missing pixels are noticed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pdeinfer.images.limits import WorkLimits, check_limit

# Markers followed by a length, and the end of the image; the others, below 0xC0 and restarts, have no length.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1, 0xC3, 0xC9, 0xCB)  # lossless ones included
_HUFFMAN = (0xC0, 0xC1)  # not in arithmetic code, whose encoders leave zeros out at the end, and not lossless
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# The first bit is 1, where the decoder would make up a 0: the two decode to different symbols. The rest varies, without
# 0xFF, which would begin a marker.
_FILLER = bytes((0xB5 + 37 * index) % 255 for index in range(128))
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_READ_AHEAD = bytes(8)  # libjpeg fills a register of 64 bits before it decodes the last symbols


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """What the markers of a JPEG tell.

    Attributes:
        scans: their number.
        has_all_scans: whether they hold every bit of every coefficient.
        end: the place of the end marker; None if the file lacks it.
        is_simple: whether the pixels are one scan in Huffman code.
    """

    scans: int
    has_all_scans: bool
    end: int | None
    is_simple: bool


def check_jpeg(content: bytes, name: str, limits: WorkLimits) -> JpegStructure:
    """Return the structure of a JPEG up to its end; ignore what follows.

    Raises:
        ImageError: it has too many segments or scans.
    """
    scans, exif, frame, end = 0, 0, None, None
    missing: dict[int, set[int]] = {}  # the coefficients of each component
    for number, (kind, position, segment) in enumerate(_segments(content)):
        check_limit(name, "segments in a JPEG", number, limits.jpeg_segments)
        exif += kind == _APP1 and segment.startswith(b"Exif\0\0")
        if kind in _FRAMES:
            frame = kind
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif kind == _START_OF_SCAN:
            scans += 1
            for component, first, last in _last_bits(segment, frame in _SEQUENTIAL):
                missing.get(component, set()).difference_update(range(first, last + 1))
        elif kind == _END_OF_IMAGE:
            end = position
    check_limit(name, "scans in a JPEG", scans, limits.jpeg_scans)
    check_limit(name, "EXIF segments in a JPEG", exif, limits.jpeg_exif_segments)
    return JpegStructure(scans, not any(missing.values()), end, scans == 1 and frame in _HUFFMAN)


def _segments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each marker with its place and what follows its length, up to the end of the image."""
    position = 2
    while marker := _MARKER.search(content, position):
        kind, position = marker[0][1], marker.end()
        if kind == _END_OF_IMAGE:
            yield kind, marker.start(), b""
            return
        length = int.from_bytes(content[position : position + 2], "big")
        yield kind, marker.start(), content[position + 2 : position + length]
        position += length


def _last_bits(scan: bytes, is_sequential: bool) -> Iterator[tuple[int, int, int]]:
    """Yield the components of a scan, with the first and last coefficient whose lowest bit it holds."""
    count = scan[0] if scan else 0
    if len(scan) >= 4 + 2 * count and (is_sequential or not scan[3 + 2 * count] & 0x0F):
        # A sequential scan holds all, whatever these bytes say.
        first, last = (0, 63) if is_sequential else (scan[1 + 2 * count], min(scan[2 + 2 * count], 63))
        yield from ((component, first, last) for component in scan[1 : 1 + 2 * count : 2])


def open_end(content: bytes, end: int) -> bytes:
    """Return a JPEG without its end marker and what follows; its pixels must be one scan in Huffman code.

    Before this marker the decoder makes up all pixels that are missing. Without it Pillow asks for more of the file,
    and refuses it, unless a few bytes suffice.
    """
    return b"".join([memoryview(content)[:end], _READ_AHEAD])


def end_jpeg(content: bytes) -> tuple[bytes, bytes]:
    """Return two versions of a JPEG that lacks its end marker.

    One continues with the marker, where the decoder makes up missing pixels as grey. The other continues with filler,
    which the decoder takes for pixels if any are missing. No pixels are missing if both decode to the same.
    """
    rest = content.rstrip(b"\xff")  # half a marker
    restarts = _RESTART.findall(rest, rest.rfind(_SCAN))
    following = restarts[-1][0] + 1 if restarts else 0  # the decoder may wait for this one
    filler = b"".join(_FILLER + b"\xff" + bytes([0xD0 + (following + number) % 8]) for number in range(8)) + _FILLER
    return rest + _END, rest + filler + _END
