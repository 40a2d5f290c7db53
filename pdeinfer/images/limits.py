"""Limits what decoding may cost: rejects disproportionately expensive files, before any pixel is decoded."""

import io
import os
import sys
from dataclasses import dataclass, fields
from typing import BinaryIO

import PIL.Image
from PIL import ImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError

MAX_IMAGE_PIXELS = 64_000_000  # that decoding one image may hold: see step 1 in `pdeinfer.images.convert`
MAX_FILE_BYTES = 2**28  # of a file that is read as a whole: a BMP of that many pixels has 192 MB

_COPIES = 2  # of the file, while it is decoded
_OVERHEAD = 8 * 2**20  # buffers of libraries, and fragments


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """The most of anything in a file that costs more to decode than its bytes and pixels tell.

    Attributes:
        jpeg_pixels: at full size; at a fraction a JPEG takes less memory, but every block still takes time.
        jpeg_segments: Pillow visits each in Python.
        jpeg_scans: encoders write about ten; each, in a few bytes, can make the decoder visit every pixel again.
        jpeg_exif_segments: Pillow joins them, and copies all previous ones for each.
        png_chunks: 100,000 hold 100 MB of pixels in chunks of 1 KiB.
        webp_chunks: of a file that is cut off.
        tiff_values: of a tag. Pillow makes an object of each, and several of every strip. Even in three planes of
            one-row strips, a square image reaches the default only far above 64 megapixels.
        ppm_head: bytes, which Pillow reads one by one.
        heif_bytes: of an AVIF or HEIC, whose pixels may be more than its header says.
        slow_bytes, slow_pixels: of a file that Pillow decodes in Python: PPM in text (it copies everything that
            follows, for each comment) or with another maximum than 255 (in grey also 65535), and BMP with RLE.
    """

    jpeg_pixels: int = 1 << 28
    jpeg_segments: int = 10_000
    jpeg_scans: int = 100
    jpeg_exif_segments: int = 100
    png_chunks: int = 100_000
    webp_chunks: int = 10_000
    tiff_values: int = 200_000
    ppm_head: int = 4096
    heif_bytes: int = 0
    slow_bytes: int = 1 << 18
    slow_pixels: int = 1 << 20


GUARDED = WorkLimits()
UNLIMITED = WorkLimits(*[sys.maxsize] * len(fields(WorkLimits)))  # for a process that the system limits


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """What decoding one image may cost, in `pdeinfer.images.isolation`.

    Attributes:
        pixels: counted as in step 1 of `pdeinfer.images.convert`.
        bytes: of memory, in addition to the file: both as its header tells and in fact.
        seconds: of CPU time.
    """

    pixels: int = MAX_IMAGE_PIXELS
    bytes: int = 2**30
    seconds: float = 10.0

    def address_space(self, file_bytes: int) -> int:
        """Return the bytes by which a process may grow to decode a file of that size."""
        return self.bytes + _COPIES * file_bytes + _OVERHEAD


def file_too_large(name: str, size: int | None = None) -> ImageTooLargeError:
    """Return the error for a file of more than `MAX_FILE_BYTES`; a stream's size is unknown."""
    return ImageTooLargeError(f"{name}: expected a file of at most {MAX_FILE_BYTES} bytes, got {size or 'more'}")


def check_ppm(file: BinaryIO, max_bytes: int) -> None:
    """Raise Pillow's own error if the header of a PPM does not end within `max_bytes`."""
    PIL.Image.open(io.BytesIO(file.read(max_bytes)), formats=["PPM"]).close()


def check_work(picture: ImageFile.ImageFile, name: str, limits: WorkLimits) -> None:
    """Reject a file that is disproportionately slow to decode.

    Raises:
        ImageTooLargeError: a JPEG has too many pixels.
        ImageError: Pillow decodes the file in Python and it is large, or pixels are decoded repeatedly.
    """
    pixels = picture.width * picture.height
    if picture.format == "JPEG":
        check_pixels(picture.size, name, limits.jpeg_pixels)
    tiles = getattr(picture, "tile", [])
    if tiles and tiles[0].codec_name in PIL.Image.DECODERS and picture.fp is not None:
        kind = f"a {picture.format} that Pillow decodes in Python"
        check_limit(name, f"bytes of {kind}", picture.fp.seek(0, os.SEEK_END), limits.slow_bytes)
        check_limit(name, f"pixels of {kind}", pixels, limits.slow_pixels)
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


def check_limit(name: str, what: str, found: int, limit: int) -> None:
    """Raise ImageError if there are more than `limit` of something in the image that errors call `name`."""
    if found > limit:
        raise ImageError(f"{name}: expected at most {limit} {what}, got {found}")
