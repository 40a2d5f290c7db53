"""What is refused of an image file before any pixel is decoded: it would take long, or much memory, for its size."""

import io
import os
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal

import PIL.Image
from PIL import ImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError

MAX_IMAGE_PIXELS = 64_000_000  # what decoding one image may take: see `pdeinfer.images.convert.decoded_pixels`
MAX_JPEG_SCANS = 100  # encoders write about ten; each, in a few bytes, can make the decoder visit every pixel again
MAX_JPEG_EXIF = 100  # Pillow joins these segments, and copies all before for each
MAX_PPM_HEAD = 4096  # Pillow reads it byte by byte
MAX_TIFF_VALUES = 100_000  # of one tag: Pillow makes an object of each, and of each strip some more
# Where Pillow decodes in Python: PPM in text, or with another maximum than 255 (in grey also 65535), and BMP with RLE.
MAX_SLOW_BYTES = 1 << 18  # in text it copies all that follows, for each comment
MAX_SLOW_PIXELS = 1 << 20

# Markers that are followed by a length, and the end of the image; the others, below 0xC0 and restarts, have no length.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323
_TIFF_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_TIFF_STARTS = (b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0", b"MM\0+")
_TIFF_TAGS = 65_535
_TIFF_BYTES = (1, 2, 7)  # kinds of values that Pillow leaves together,
_TIFF_OFFSETS = (273, 324)  # but for these tags, of strips and tiles


def check_head(file: BinaryIO, name: str) -> int:
    """Reject a file that would keep Pillow busy while opening it, and a JPEG with too many scans.

    Args:
        file: at its start, where it is left again.
        name: what errors call the image.

    Returns:
        The number of scans of a JPEG; 0 for other formats.
    """
    scans = 0
    head = file.read(MAX_PPM_HEAD)
    if head.startswith(_START_OF_IMAGE):
        content = head + file.read()
        scans = _count_scans(content)
        _check_limit(name, "scans in a JPEG", scans, MAX_JPEG_SCANS)
        _check_limit(name, "EXIF segments in a JPEG", content.count(b"Exif\0\0"), MAX_JPEG_EXIF)
    elif head.startswith(b"P"):
        PIL.Image.open(io.BytesIO(head), formats=["PPM"]).close()
    elif head[:4] in _TIFF_STARTS:
        _check_limit(name, "values of a tag in a TIFF", max(_tiff_counts(file, head), default=0), MAX_TIFF_VALUES)
    file.seek(0)
    return scans


def _check_limit(name: str, what: str, found: int, limit: int) -> None:
    if found > limit:
        raise ImageError(f"{name}: expected at most {limit} {what}, got {found}")


def _tiff_counts(file: BinaryIO, head: bytes) -> Iterator[int]:
    """Yield how many values each tag of the first picture has of which Pillow makes an object each."""
    order = _TIFF_BYTE_ORDERS[head[:2]]
    layouts = [(4, 4, 2)]  # where the tags' place stands, the bytes of it and of a count, and of the number of tags
    if 43 in head[2:4]:  # BigTIFF; what Pillow takes for one depends on its version
        layouts.append((8, 8, 8))
    for start, size, size_of_number in layouts:
        file.seek(int.from_bytes(head[start : start + size], order))
        number = int.from_bytes(file.read(size_of_number), order)
        for _ in range(min(number, _TIFF_TAGS)):
            entry = file.read(4 + 2 * size)
            tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
            if kind not in _TIFF_BYTES or tag in _TIFF_OFFSETS:
                yield int.from_bytes(entry[4 : 4 + size], order)


def _count_scans(content: bytes) -> int:
    """Return how many scans the decoder meets before the image ends: other data, such as a film, may follow it."""
    scans, position = 0, 2
    while marker := _JPEG_MARKER.search(content, position):
        kind, position = marker[0][1], marker.end()
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        position += int.from_bytes(content[position : position + 2], "big")
    return scans


def check_work(picture: ImageFile.ImageFile, name: str) -> None:
    """Raise ImageError for what is decoded in Python and not small, and for pixels decoded again and again."""
    pixels = picture.width * picture.height
    tiles = getattr(picture, "tile", [])
    if tiles and tiles[0].codec_name in PIL.Image.DECODERS and picture.fp is not None:
        kind = f"a {picture.format} that Pillow decodes in Python"
        _check_limit(name, f"bytes of {kind}", picture.fp.seek(0, os.SEEK_END), MAX_SLOW_BYTES)
        _check_limit(name, f"pixels of {kind}", pixels, MAX_SLOW_PIXELS)
    boxes = [tile.extents for tile in tiles if tile.extents is not None]
    decoded = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    _check_limit(name, "pixels in all strips together", decoded, pixels * len(picture.getbands()))


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageTooLargeError if decoding takes more than `max_pixels`; `size` is the width and height decoded."""
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name}: expected at most {max_pixels} pixels, got {width} x {height}", width * height
        )


def whole_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Return the width and height decoded of a picture in full: at least those of a TIFF's tile."""
    width, height = picture.size
    tiff_tags = getattr(picture, "tag_v2", {})
    # A tile is decoded whole, even where it reaches beyond the picture.
    return max(width, tiff_tags.get(_TIFF_TILE_WIDTH, 0)), max(height, tiff_tags.get(_TIFF_TILE_HEIGHT, 0))
