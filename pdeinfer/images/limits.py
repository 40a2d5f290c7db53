"""Rejects files that would be disproportionately expensive to decode, before any pixel is decoded."""

import io
import os
from typing import BinaryIO

import PIL.Image
from PIL import ImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.images.tiff import TILE_HEIGHT, TILE_WIDTH

MAX_IMAGE_PIXELS = 64_000_000  # that decoding one image may hold: see step 1 in `pdeinfer.images.convert`
MAX_JPEG_PIXELS = (
    1 << 28
)  # of a JPEG at full size: at a fraction it takes less memory, but every block still takes time
MAX_PPM_HEAD = 4096  # Pillow reads it byte by byte
# Pillow decodes in Python: PPM in text, or with another maximum than 255 (in grey also 65535), and BMP with RLE.
MAX_SLOW_BYTES = 1 << 18  # in text it copies everything that follows, for each comment
MAX_SLOW_PIXELS = 1 << 20


def check_ppm(file: BinaryIO) -> None:
    """Raise Pillow's own error if the header of a PPM does not end within `MAX_PPM_HEAD` bytes."""
    PIL.Image.open(io.BytesIO(file.read(MAX_PPM_HEAD)), formats=["PPM"]).close()


def check_work(picture: ImageFile.ImageFile, name: str) -> None:
    """Reject a file that is disproportionately slow to decode.

    Raises:
        ImageTooLargeError: a JPEG has more than `MAX_JPEG_PIXELS`.
        ImageError: Pillow decodes the file in Python and it is large, or pixels are decoded repeatedly.
    """
    pixels = picture.width * picture.height
    if picture.format == "JPEG":
        check_pixels(picture.size, name, MAX_JPEG_PIXELS)
    tiles = getattr(picture, "tile", [])
    if tiles and tiles[0].codec_name in PIL.Image.DECODERS and picture.fp is not None:
        kind = f"a {picture.format} that Pillow decodes in Python"
        check_limit(name, f"bytes of {kind}", picture.fp.seek(0, os.SEEK_END), MAX_SLOW_BYTES)
        check_limit(name, f"pixels of {kind}", pixels, MAX_SLOW_PIXELS)
    boxes = [tile.extents for tile in tiles if tile.extents is not None]
    decoded = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    check_limit(name, "pixels in all strips together", decoded, pixels * len(picture.getbands()))


def check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise ImageTooLargeError if decoding takes more than `max_pixels`; `size` is the width and height decoded."""
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name}: expected at most {max_pixels} pixels, got {width} x {height}", width * height
        )


def whole_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Return the width and height that decoding a picture in full takes: at least those of a TIFF's tile."""
    width, height = picture.size
    tiff_tags = getattr(picture, "tag_v2", {})
    # A tile is decoded whole, even where it reaches beyond the picture.
    return max(width, tiff_tags.get(TILE_WIDTH, 0)), max(height, tiff_tags.get(TILE_HEIGHT, 0))


def check_limit(name: str, what: str, found: int, limit: int) -> None:
    """Raise ImageError if there are more than `limit` of something in the image that errors call `name`."""
    if found > limit:
        raise ImageError(f"{name}: expected at most {limit} {what}, got {found}")
