"""Converts decoded pixels: steps 2 to 6 of the rule in `pdeinfer.images.convert`."""

from typing import cast

import numpy as np
import PIL.Image
from PIL.PngImagePlugin import PngImageFile

from pdeinfer.errors import ImageError
from pdeinfer.images import tiff
from pdeinfer.images.metadata import orientation
from pdeinfer.spec.networks import InputSpec

_BILINEAR = PIL.Image.Resampling.BILINEAR  # Pillow's filter grows with the reduction: it antialiases
_TRANSPOSE = PIL.Image.Transpose
_UPRIGHT = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_GREY_LEVELS = {"L;2": 85, "L;4": 17}  # by Pillow's name of the samples: 8-bit values between neighbouring levels
_TRANSPARENT_GREY = "_pdeinfer_transparent_grey"  # an attribute of Pillow images, which may be given again


def transparent_grey(picture: PIL.Image.Image, name: str) -> int | None:
    """Return the 8-bit value that a PNG of 2 or 4 bits grey calls transparent, before its pixels are decoded.

    Raises:
        ImageError: a PNG of 16-bit colours calls one of them transparent: Pillow keeps only the high bytes of pixels.
    """
    if not (isinstance(picture, PngImageFile) and "transparency" in picture.info):
        return None
    noted = vars(picture)  # a picture that was decoded before no longer tells its bits
    if picture.tile:
        samples = str(picture.tile[0].args)
        if samples == "RGB;16B":
            raise ImageError(
                f"{name}: expected 8 bits per channel beside a transparent colour, got 16: save it as 8-bit"
            )
        if samples in _GREY_LEVELS:
            noted[_TRANSPARENT_GREY] = int(picture.info["transparency"]) * _GREY_LEVELS[samples]
    return cast(int | None, noted.get(_TRANSPARENT_GREY))


def to_mode(picture: PIL.Image.Image, channels: int, transparent: int | None, name: str) -> PIL.Image.Image:
    """Return a decoded picture upright, opaque, and as 8-bit grey ("L") or "RGB"."""
    # Pillow opens a PGM file of 16 bits as 32-bit integers.
    is_16_bit = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM")
    if picture.mode in ("I", "F") and not is_16_bit:
        kind = "integers" if picture.mode == "I" else "floats"
        raise ImageError(f"{name}: expected 8 or 16 bits per channel, got 32-bit {kind}")
    if picture.mode == "P" and picture.palette is None:
        raise ImageError(f"{name}: expected a palette for the picture's indices, got none")
    grey_range = (0, 65_535)
    if is_16_bit and picture.format == "HEIF":  # 10 or 12 bits, in the high ones
        bits = picture.info["bit_depth"]
        grey_range = (0, (2**bits - 1) << (16 - bits))
    if tiff.has_tags(picture):
        grey_range = tiff.grey_range(picture)
        if picture.mode in ("P", "PA") and (palette := tiff.eight_bit_palette(picture)):
            picture = picture.copy()
            picture.putpalette(palette, "RGB;L")
    picture = _without_foreign_transparency(_upright(picture))
    if is_16_bit:
        transparent = picture.info.get("transparency")
    if is_16_bit:
        picture = _to_8_bit(picture, *grey_range, transparent)
    elif transparent is not None:
        values = np.array(picture)
        values[values == transparent] = 255
        picture = PIL.Image.fromarray(values)
    if picture.mode == "La":  # Pillow converts premultiplied grey to no other mode
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        opaque = PIL.Image.new("RGB", picture.size, "white")
        picture = _convert(picture, "RGBA")
        opaque.paste(picture, mask=picture)
        picture = opaque
    if picture.mode not in ("1", "L"):
        picture = _convert(picture, "RGB")
    return _convert(picture, "L" if channels == 1 else "RGB")


def _convert(picture: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    # Pillow would copy the pixels where there is nothing to convert.
    return picture if picture.mode == mode else picture.convert(mode)


def _without_foreign_transparency(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return a picture without a transparency of another mode, which Pillow's `split`, `quantize` and others keep."""
    value = picture.info.get("transparency")
    if picture.mode == "P":
        fits = _is_in(256, value) or (isinstance(value, bytes) and len(value) <= 256)
    elif picture.mode == "RGB":
        fits = isinstance(value, tuple) and len(value) == 3 and all(_is_in(2**16, each) for each in value)
    else:
        fits = _is_in(2**16, value)  # a PNG has 16 bits for it, of which 8-bit pixels use the low ones
    if "transparency" in picture.info and not fits:
        picture = picture.copy()
        del picture.info["transparency"]
    return picture


def _is_in(end: int, value: object) -> bool:
    return isinstance(value, int) and 0 <= value < end


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    turn = _UPRIGHT.get(orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _to_8_bit(picture: PIL.Image.Image, black: int, white: int, transparent: int | None) -> PIL.Image.Image:
    """Return grey of 9 to 16 bits as 8-bit grey, rounded, with the transparent value as white."""
    values = np.asarray(picture)
    maximum = max(black, white)
    grey = np.empty(values.shape, np.uint8)
    for row, row_values in enumerate(values):  # 32-bit values of all rows would take twice the picture's memory
        scaled = row_values.astype(np.uint32)
        if white < black:
            scaled = maximum - np.minimum(scaled, maximum)
        grey[row] = (scaled * 255 + maximum // 2) // maximum
    if transparent is not None:
        grey[values == transparent] = 255
    return PIL.Image.fromarray(grey)


def fit(picture: PIL.Image.Image, spec: InputSpec) -> PIL.Image.Image:
    """Return a picture at the size of the network's input, fitted as `spec.fit` says."""
    size = (spec.width, spec.height)
    if picture.size == size:
        return picture
    width, height = picture.size
    # Compared as integers: is the picture wider than the network's input, for its height?
    is_wider = width * spec.height > height * spec.width
    if spec.fit == "crop":
        crop_width = height * spec.width / spec.height if is_wider else width
        crop_height = height if is_wider else width * spec.height / spec.width
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return picture.resize(size, _BILINEAR, box=(left, top, left + crop_width, top + crop_height))
    if spec.fit == "pad":
        new_width = spec.width if is_wider else max(1, round(width * spec.height / height))
        new_height = max(1, round(height * spec.width / width)) if is_wider else spec.height
        padded = PIL.Image.new(picture.mode, size)
        corner = ((spec.width - new_width) // 2, (spec.height - new_height) // 2)
        padded.paste(picture.resize((new_width, new_height), _BILINEAR), corner)
        return padded
    return picture.resize(size, _BILINEAR)
