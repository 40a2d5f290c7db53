"""Estimates, from an image's header, how much memory decoding and converting it takes.

The bytes per pixel were measured with Pillow 12; `tests/images/test_image_cost.py` checks them with later releases.
"""

import PIL.Image
from PIL.TiffImagePlugin import TiffImageFile

from pdeinfer.images.damage import orientation

_OPAQUE = 5  # Pillow keeps RGB in 4 bytes, and the conversion to grey adds 1
_CONVERTED = 12  # the image in its own mode, as RGBA and on a white background
_WEBP = 17  # libwebp keeps two canvases, and Pillow two copies
_TURNED = 4  # a copy in the other orientation
_RESIZED = 16  # weights of the filter, for each pixel of a side
_TIFF_BITS = 258  # the tag of the bits per value
_COEFFICIENT = 2  # libjpeg keeps all coefficients of a JPEG that has several scans


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
    elif picture.mode in ("1", "L", "RGB") and not picture.has_transparency_data:
        per_pixel = _OPAQUE
    else:
        per_pixel = _CONVERTED
    if _may_be_turned(picture):
        per_pixel += _TURNED
    cost = per_pixel * width * height + _RESIZED * (width + height)
    whole_values = len(picture.getbands()) * whole_size[0] * whole_size[1]
    if isinstance(picture, TiffImageFile):  # libtiff decodes a strip or tile as a whole
        cost += whole_values * ((max(picture.tag_v2.get(_TIFF_BITS, (1,))) + 7) // 8)
    if jpeg_scans > 1:
        cost += _COEFFICIENT * whole_values
    return cost


def _may_be_turned(picture: PIL.Image.Image) -> bool:
    return picture.format == "PNG" or orientation(picture) != 1  # a PNG's EXIF may follow its pixels
