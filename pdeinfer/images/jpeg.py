"""Reads the markers of JPEG files: rejects expensive files, and completes those without an end marker."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pdeinfer.images.limits import WorkLimits, check_limit

# Markers followed by a length, and the end of the image; the others, below 0xC0 and restarts, have no length.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# The first bit is 1, where the decoder would make up a 0: the two decode to different symbols. The rest varies, without
# 0xFF, which would begin a marker.
_FILLER = bytes((0xB5 + 37 * index) % 255 for index in range(128))
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


@dataclass(frozen=True, slots=True)
class JpegStructure:
    """What the markers of a JPEG tell.

    Attributes:
        scans: their number.
        has_all_scans: whether they hold every bit of every coefficient.
        is_ended: whether the file has its end marker.
    """

    scans: int
    has_all_scans: bool
    is_ended: bool


def check_jpeg(content: bytes, name: str, limits: WorkLimits) -> JpegStructure:
    """Return the structure of a JPEG up to its end; ignore what follows.

    Raises:
        ImageError: it has too many segments or scans.
    """
    scans, exif, is_ended = 0, 0, False
    missing: dict[int, set[int]] = {}  # the coefficients of each component
    for number, (kind, segment) in enumerate(_segments(content)):
        check_limit(name, "segments in a JPEG", number, limits.jpeg_segments)
        is_ended = kind == _END_OF_IMAGE
        exif += kind == _APP1 and segment.startswith(b"Exif\0\0")
        if kind in _FRAMES:
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif kind == _START_OF_SCAN:
            scans += 1
            for component, first, last in _last_bits(segment):
                missing.get(component, set()).difference_update(range(first, last + 1))
    check_limit(name, "scans in a JPEG", scans, limits.jpeg_scans)
    check_limit(name, "EXIF segments in a JPEG", exif, limits.jpeg_exif_segments)
    return JpegStructure(scans, not any(missing.values()), is_ended)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each marker with what follows its length, up to the end of the image."""
    position = 2
    while marker := _MARKER.search(content, position):
        kind, position = marker[0][1], marker.end()
        if kind == _END_OF_IMAGE:
            yield kind, b""
            return
        length = int.from_bytes(content[position : position + 2], "big")
        yield kind, content[position + 2 : position + length]
        position += length


def _last_bits(scan: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the components of a scan, with the first and last coefficient whose lowest bit it holds."""
    count = scan[0] if scan else 0
    if len(scan) >= 4 + 2 * count and not scan[3 + 2 * count] & 0x0F:
        first, last = scan[1 + 2 * count], min(scan[2 + 2 * count], 63)
        yield from ((component, first, last) for component in scan[1 : 1 + 2 * count : 2])


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
