"""TIFF files: rejects tags that would be expensive to read, layouts that Pillow decodes wrongly, and missing pixels."""

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, Literal, NamedTuple, TypeGuard

import PIL.Image
import PIL.ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pdeinfer.errors import ImageError

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR, _COLOUR_MAP = 258, 259, 262, 266, 277, 284, 320
_SUB_DIRECTORIES, _INK_SET, _SAMPLE_FORMAT, _SUBSAMPLING, _SUB_FILE_TYPE, _DNG_VERSION = 330, 332, 339, 530, 254, 50706
_ICC_PROFILE, _EXIF, _GPS, _INTEROPERABILITY = 34675, 34665, 34853, 40965
_POINTERS = (_EXIF, _GPS, _INTEROPERABILITY)
_OFFSETS = (273, 324)  # of strips and tiles
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_FIRST_PRIVATE = 32_768  # from here on Pillow reads only the profile and the pointers

_LAYOUT = {
    _COMPRESSION: "compression",
    _PHOTOMETRIC: "photometric interpretation",
    _BITS: "bits per sample",
    _SAMPLES: "samples per pixel",
    _PLANAR: "planar configuration",
    _SAMPLE_FORMAT: "sample format",
}

# Tags whose values are compared as numbers, here or in Pillow.
_NUMBERS = (*_LAYOUT, _TILE_WIDTH, _TILE_HEIGHT, _FILL_ORDER, _COLOUR_MAP, _INK_SET, _SUBSAMPLING, _SUB_FILE_TYPE)
_INTEGER_KINDS = (3, 4, 6, 8, 9, 13, 16)

_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_BIG_STARTS = (b"II+\0", b"MM\0+")
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTE_KINDS = (1, 2, 7)  # their values stay together
_MAX_TAGS = 65_535
_MAX_NAMED = 6

_WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6
_SIGNED = 2


class _Tag(NamedTuple):
    number: int
    kind: int
    length: int
    value: int  # or the offset of values that do not fit


def check_tags(file: BinaryIO, name: str, max_values: int) -> str:
    """Raise ImageError if the tags of the first image, or of its EXIF, would take Pillow much time or memory.

    Also if a tag that is a number is of another type, such as text.

    Args:
        file: a TIFF; its position is changed.
        name: the image's name in errors.
        max_values: the most values of a tag.

    Returns:
        The layout of the samples in words, for an error.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = _BYTE_ORDERS[head[:2]]
    is_big = head[:4] in _BIG_STARTS
    if is_big and order == "big":
        raise ImageError(f"{name}: expected a TIFF that Pillow reads, got a big-endian BigTIFF: save it little-endian")
    first = list(_read_directory(file, int.from_bytes(head[8:16] if is_big else head[4:8], order), order, is_big))
    pointers = {tag.number: tag.value for tag in reversed(first) if tag.number in _POINTERS}
    below = [tag for place in pointers.values() for tag in _read_directory(file, place, order, is_big)]
    read = [tag for tag in first if tag.number < _FIRST_PRIVATE or tag.number in (*_POINTERS, _ICC_PROFILE)]
    for tag in first:
        if tag.number in _NUMBERS and tag.kind not in _INTEGER_KINDS:
            raise ImageError(f"{name}: expected integers as tag {tag.number} of a TIFF, got values of type {tag.kind}")
    for tag in (*read, *below):
        stays_together = tag.kind in _BYTE_KINDS and tag.number not in _OFFSETS
        if not stays_together and tag.length > max_values:
            raise ImageError(f"{name}: expected at most {max_values} values of a tag in a TIFF, got {tag.length}")
    held = [(tag.length * _VALUE_BYTES.get(tag.kind, 0), tag.value) for tag in (*first, *below)]
    # Values that fit stand in the directory, and Pillow skips those that are not in the file.
    total = sum(length for length, place in held if length > (8 if is_big else 4) and place + length <= size)
    if total > size:
        raise ImageError(f"{name}: expected the tags of a TIFF to fit into its {size} bytes, got {total} bytes of them")
    layout = [f"{_LAYOUT[tag.number]} {tag.value}" for tag in first if tag.number in _LAYOUT and tag.length == 1]
    return f"TIFF with {', '.join(layout[:_MAX_NAMED]) or 'no layout'}"


def _read_directory(file: BinaryIO, place: int, order: Literal["little", "big"], is_big: bool) -> Iterator[_Tag]:
    word, counter = (8, 8) if is_big else (4, 2)
    file.seek(min(place, 2**63 - 1))
    number = int.from_bytes(file.read(counter), order)
    for _ in range(min(number, _MAX_TAGS)):
        entry = file.read(4 + 2 * word)
        if len(entry) < 4 + 2 * word:
            return
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        length, field = int.from_bytes(entry[4 : 4 + word], order), entry[4 + word :]
        held = length * _VALUE_BYTES.get(kind, word)  # values that fit stand in the field, from its start
        yield _Tag(tag, kind, length, int.from_bytes(field[:held] if held <= word else field, order))


def has_tags(picture: PIL.Image.Image) -> TypeGuard[TiffImageFile]:
    """Return whether a picture is a TIFF with its tags: Pillow's pickled copies have lost them."""
    return isinstance(picture, TiffImageFile) and hasattr(picture, "tag_v2")


def whole_size(picture: PIL.Image.Image) -> tuple[int, int]:
    """Return the width and height that decoding a picture in full takes: at least those of a TIFF's tile."""
    width, height = picture.size
    if not has_tags(picture):
        return width, height
    # A tile is decoded whole, even where it reaches beyond the picture.
    return max(width, picture.tag_v2.get(_TILE_WIDTH, 0)), max(height, picture.tag_v2.get(_TILE_HEIGHT, 0))


def value_bytes(picture: TiffImageFile) -> int:
    """Return the bytes of a decoded value: of one channel of a pixel."""
    bits: int = max(picture.tag_v2.get(_BITS, (1,)))
    return (bits + 7) // 8


def check_layout(picture: TiffImageFile, name: str) -> None:
    """Raise ImageError for samples that Pillow would silently decode to wrong pixels, or that are missing."""
    tags = picture.tag_v2
    bits = tags.get(_BITS, (1,))
    is_planar = tags.get(_PLANAR, 1) == 2 and len(bits) > 1
    is_raw = tags.get(_COMPRESSION, 1) == 1
    photometric = tags.get(_PHOTOMETRIC, 0)
    if _DNG_VERSION in tags or (tags.get(_SUB_FILE_TYPE, 0) & 1 and _SUB_DIRECTORIES in tags):
        raise ImageError(f"{name}: expected an image, got a raw camera file: develop it to JPEG or PNG")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, (1,)) and max(bits) < 32:  # of 32 bits, all integers are refused
        raise _unsupported(name, f"signed samples of {bits[0]} bits")
    if is_planar and (max(bits) > 8 or picture.mode not in ("RGB", "CMYK")):
        raise _unsupported(name, f"separate planes of {bits[0]} bits in mode {picture.mode}")
    if is_raw and tags.get(_FILL_ORDER, 1) == 2 and (is_planar or max(bits) > 8):
        raise _unsupported(name, f"samples of {bits[0]} bits in reversed order")
    if photometric == _CMYK and tags.get(_INK_SET, 1) != 1:
        raise _unsupported(name, "inks other than CMYK")
    if photometric == _YCBCR and is_raw and len(bits) > 1 and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
        raise _unsupported(name, "subsampled YCbCr without compression")
    _check_strips(picture, name, is_planar)


def _check_strips(picture: TiffImageFile, name: str, is_planar: bool) -> None:
    """Raise ImageError if strips or tiles are missing: Pillow shows them black, or as other bytes of the file.

    Those that are compressed are left to libtiff, which refuses them itself.
    """
    # An image that has been decoded before has no tiles.
    tiles = [(tile.offset, tile.extents) for tile in picture.tile if tile.codec_name == "raw" and tile.extents]
    if not tiles or PIL.ImageFile.LOAD_TRUNCATED_IMAGES:
        return
    tags = picture.tag_v2
    bits = tags.get(_BITS, (1,))
    pixel_bits = bits[0] if is_planar else sum(bits[: tags.get(_SAMPLES, 1)])
    sizes = [(offset, right - left, lower - upper) for offset, (left, upper, right, lower) in tiles]
    expected = picture.width * picture.height * (len(picture.getbands()) if is_planar else 1)
    is_covered = sum(width * height for _, width, height in sizes) >= expected
    # A strip must not reach into the next one. Some programs write wrong counts of bytes, which say nothing.
    ends = dict(pairwise(sorted({offset for offset, _ in tiles})))
    is_short = any(
        offset + height * ((width * pixel_bits + 7) // 8) > ends.get(offset, math.inf)
        for offset, width, height in sizes
    )
    if not is_covered or is_short or any(offset == 0 for offset, _ in tiles):
        raise ImageError(
            f"{name}: expected a TIFF with all of its pixels, got one whose strips or tiles are missing or too short"
        )


def _unsupported(name: str, layout: str) -> ImageError:
    return ImageError(f"{name}: expected a TIFF layout that decodes exactly, got {layout}: save it as 8-bit RGB")


def grey_range(picture: TiffImageFile) -> tuple[int, int]:
    """Return the values of black and white in a TIFF of 9 to 16 bits grey, as Pillow leaves them undecoded."""
    maximum = 2 ** int(picture.tag_v2.get(_BITS, (16,))[0]) - 1
    return (maximum, 0) if picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, maximum)


def eight_bit_palette(picture: TiffImageFile) -> bytes | None:
    """Return the colours of a TIFF whose palette has 8-bit values, which Pillow takes for 16-bit: RGB, plane by plane.

    Some programs write such palettes, and libtiff recognises them in the same way. None for other TIFF files.
    """
    values = picture.tag_v2.get(_COLOUR_MAP, ())
    return bytes(values) if values and max(values) < 256 else None
