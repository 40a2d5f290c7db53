"""Estimates, from an image's header, how much memory decoding and converting it takes.

The bytes per pixel were measured with Pillow 12; `tests/images/test_image_cost.py` checks them with later releases.
"""

import io
from typing import NamedTuple

import PIL.Image

from pdeinfer.errors import ImageTooLargeError
from pdeinfer.images import tiff
from pdeinfer.images.formats import HEAD_BYTES, recognise
from pdeinfer.images.metadata import orientation

_OPAQUE = 5  # Pillow keeps RGB in 4 bytes, and the conversion to grey adds 1
_CONVERTED = 12  # the image in its own mode, as RGBA and on a white background
_WEBP = 17  # libwebp keeps two canvases, and Pillow two copies
_WEBP_HEAD = 30
_AVIF = 24  # the decoder's frame, libavif's planes of up to 16 bits and its RGBA, and Pillow's copies
_HEIF = 9  # libheif's planes and RGB, and Pillow's copies, for grey and for colour at half the resolution
_HEIF_FULL = 14  # the same with colour at full resolution or transparency
_HEIF_DEEP = 10  # in addition: planes and RGB of more than 8 bits
_PNG_COMPRESSED = (b"zTXt", b"iTXt")  # only those that may hold the orientation are read
_PNG_ORIENTATION = (b"eXIf", b"tEXt", *_PNG_COMPRESSED)
_TURNED = 4  # a copy in the other orientation
_RESIZED = 16  # weights of the filter, for each pixel of a side
_COEFFICIENT = 2  # libjpeg keeps all coefficients of a JPEG that has several scans


class Estimate(NamedTuple):
    """What decoding and converting an image takes, by its header.

    Attributes:
        bytes: the most memory, in addition to the file.
        width, height: of the pixels to decode.
    """

    bytes: int
    width: int
    height: int

    def too_large(self, name: str, max_bytes: int) -> ImageTooLargeError:
        """Return the error for an image that may take at most `max_bytes`."""
        return ImageTooLargeError(
            f"{name}: expected an image that decodes in at most {max_bytes / 1e6:.0f} MB, got {self.width} x "
            f"{self.height} pixels that take {self.bytes / 1e6:.0f} MB: use a smaller image, or a baseline JPEG"
        )


def is_plain(content: bytes) -> bool:
    """Return whether the header of a file tells what it takes: how long it is, and how many pixels it has.

    Those of WEBP, AVIF and HEIC do not, nor does that of a PNG with compressed metadata. Pillow decodes PPM in Python,
    where each byte may be a comment of its own.
    """
    kind = recognise(content[:HEAD_BYTES])
    has_text = kind == "PNG" and any(chunk in content for chunk in _PNG_COMPRESSED)
    return kind not in ("AVIF", "HEIF", "PPM", "WEBP") and not has_text


def estimate_webp(head: bytes) -> Estimate | None:
    """Return the estimate for a WEBP by its first bytes; None for other files.

    A WEBP takes most of its memory when it is opened, before `decoding_bytes` can tell.
    """
    if recognise(head) != "WEBP" or len(head) < _WEBP_HEAD:
        return None
    match head[12:16]:
        case b"VP8X":
            width, height = (1 + int.from_bytes(head[place : place + 3], "little") for place in (24, 27))
        case b"VP8L":
            sides = int.from_bytes(head[21:25], "little")
            width, height = 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
        case _:
            width, height = (int.from_bytes(head[place : place + 2], "little") & 0x3FFF for place in (26, 28))
    return Estimate(_WEBP * width * height + _RESIZED * (width + height), width, height)


def decoding_bytes(picture: PIL.Image.Image, whole_size: tuple[int, int], jpeg_scans: int) -> int:
    """Return the most memory, in bytes, that decoding and converting an image takes in addition to its file.

    Args:
        picture: opened and not decoded; a JPEG may have been set to a reduced size.
        whole_size: its width and height before that, at least those of a TIFF's tile.
        jpeg_scans: the number of scans of a JPEG.
    """
    width, height = picture.size
    if picture.format == "WEBP":
        per_pixel = _WEBP
    elif picture.format == "AVIF":
        per_pixel = _AVIF
    elif picture.format == "HEIF":
        is_full = picture.has_transparency_data or (len(picture.getbands()) > 1 and picture.info.get("chroma") != 420)
        per_pixel = (_HEIF_FULL if is_full else _HEIF) + (_HEIF_DEEP if picture.info["bit_depth"] > 8 else 0)
    elif picture.mode in ("1", "L", "RGB") and not picture.has_transparency_data:
        per_pixel = _OPAQUE
    else:
        per_pixel = _CONVERTED
    if _may_be_turned(picture):
        per_pixel += _TURNED
    cost = per_pixel * width * height + _RESIZED * (width + height)
    whole_values = len(picture.getbands()) * whole_size[0] * whole_size[1]
    if tiff.has_tags(picture):  # libtiff decodes a strip or tile as a whole
        cost += whole_values * tiff.value_bytes(picture)
    if jpeg_scans > 1:
        cost += _COEFFICIENT * whole_values
    return cost


def _may_be_turned(picture: PIL.Image.Image) -> bool:
    if picture.format == "PNG" and isinstance(file := getattr(picture, "fp", None), io.BytesIO):
        content = file.getvalue()  # the orientation may follow the pixels
        return any(kind in content for kind in _PNG_ORIENTATION)
    return orientation(picture) != 1
