"""Any image as the uint8 array (height, width, channels) that a network takes.

The rule, in this order:

1. A file is decoded if it is a BMP, GIF, JPEG, PNG, PPM (PBM, PGM), TIFF or WEBP, to its first frame; a Pillow image is
   taken at its current frame. More than `MAX_IMAGE_PIXELS`, in a TIFF also of one tile, is refused before any pixel is
   decoded, and so is what keeps the decoder busy for much longer than its size says: see the limits below. A JPEG file
   whose sides are multiples of 8, 4 or 2 is decoded at that fraction of its size, if that leaves four times the
   network's input.
2. The EXIF orientation is applied.
3. 16-bit grey becomes 8-bit, as value / 257 rounded (Pillow itself reads 16-bit colour as its high bytes). 32-bit
   integers and floats are refused: their range is unknown.
4. What is transparent is composited on white.
5. Every colour space (palettes, CMYK, YCbCr, LAB, HSV) becomes RGB, and RGB becomes grey where the network takes grey:
   (299 R + 587 G + 114 B) / 1000.
6. An image of another size is resized, bilinear with antialiasing, as the network's `fit` says: "crop" scales the
   shorter side and crops the middle, "pad" scales the longer side and pads with black on both sides, "stretch" does
   neither. An image of the right size keeps its pixels exactly.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.presets import InputSpec

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | PIL.Image.Image | NDArray[np.uint8]

MAX_IMAGE_PIXELS = 64_000_000
MAX_JPEG_SCANS = 100  # encoders write about ten; each, in a few bytes, can make the decoder visit every pixel again
MAX_JPEG_EXIF = 100  # Pillow joins these segments, and copies all before for each
MAX_PPM_HEAD = 4096  # Pillow reads it byte by byte
MAX_TIFF_VALUES = 100_000  # of one tag: Pillow makes an object of each, and of each strip some more
# Where Pillow decodes in Python: PPM in text, or with another maximum than 255 (in grey also 65535), and BMP with RLE.
MAX_SLOW_BYTES = 1 << 18  # in text it copies all that follows, for each comment
MAX_SLOW_PIXELS = 1 << 20
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Those that a length follows, and the image's end: what is lower, and restarts, the decoder skips without a length.
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323
_TIFF_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
_TIFF_STARTS = (b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0", b"MM\0+")
_TIFF_TAGS = 65_535
_TIFF_BYTES = (1, 2, 7)  # kinds of values that Pillow leaves together,
_TIFF_OFFSETS = (273, 324)  # but for these tags, of strips and tiles
_BILINEAR = PIL.Image.Resampling.BILINEAR  # Pillow's filter grows with the reduction: it antialiases
_EXPECTED_FILE = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"


def to_array(
    image: ImageLike, spec: InputSpec, name: str | None = None, *, max_pixels: int = MAX_IMAGE_PIXELS
) -> NDArray[np.uint8]:
    """Return an image as the array that a network with the input `spec` takes, by the rule in this module's docstring.

    Args:
        image: a path; a file's bytes; a binary file object, read from its start and left open; a Pillow image; or a
            uint8 array (H, W) or (H, W, 1) grey, (H, W, 3) RGB, or (H, W, 4) RGBA.
        spec: the size, channels and fit wanted.
        name: what errors call the image, e.g. "image 3 of 10"; a path is named in any case.
        max_pixels: the most pixels that are decoded.

    Returns:
        A new uint8 array (spec.height, spec.width, spec.channels).

    Raises:
        ImageTooLargeError: more than `max_pixels`.
        ImageError: not an image of the kinds above, or a truncated or damaged one; the message names it.
    """
    name = _describe(image, name)
    try:
        with _open(image, name) as picture:
            _check_pixels(picture, name, max_pixels)
            if isinstance(picture, JpegImageFile) and picture is not image:
                _reduce(picture, spec)
            picture.load()
            converted = _fit(_to_mode(picture, spec.channels, name), spec)
            return np.array(converted, np.uint8).reshape(spec.height, spec.width, spec.channels)
    except ImageError:
        raise
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError) as error:
        raise ImageTooLargeError(f"{name}: expected at most {max_pixels} pixels: {error}") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{name}: expected {_EXPECTED_FILE}, got an empty, damaged or other file") from error
    except Exception as error:  # hostile bytes make Pillow raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name}: expected {_EXPECTED_FILE}: {reason}") from error


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files in `folder`, not those in folders below it, whose suffix is in `SUFFIXES`, sorted by name.

    Raises:
        ImageError: there is no such folder, or no such file in it.
    """
    folder = Path(folder)
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise ImageError(f"{folder}: expected a folder of images: {error.strerror}") from error
    if not files:
        raise ImageError(f"{folder}: expected a folder of images ({' '.join(SUFFIXES)}), found none")
    return files


def _describe(image: object, name: str | None) -> str:
    if isinstance(image, str | os.PathLike):
        return f"{name} ({os.fspath(image)})" if name else os.fspath(image)
    if name:
        return name
    if isinstance(image, PIL.Image.Image):
        return "Pillow image"
    if isinstance(image, np.ndarray):
        return "array"
    return "file object" if hasattr(image, "read") else type(image).__name__


@contextmanager
def _open(image: Any, name: str) -> Iterator[PIL.Image.Image]:
    """Give the image, its pixels not decoded yet, and close afterwards what was opened here."""
    if isinstance(image, PIL.Image.Image):
        yield image
    elif isinstance(image, np.ndarray):
        yield _from_array(image, name)
    elif isinstance(image, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(image, "read"):
        with _open_file(image) as file:
            _check_head(file, name)
            with PIL.Image.open(file, formats=FORMATS) as picture:
                _check_work(picture, name)
                yield picture
    else:
        raise ImageError(
            f"{name}: expected a path, bytes, a binary file object, a Pillow image or a uint8 array, "
            f"got {type(image).__name__}"
        )


def _from_array(array: NDArray[Any], name: str) -> PIL.Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: expected pixels of dtype uint8, 0 to 255, got {array.dtype}")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)) or array.size == 0:
        raise ImageError(f"{name}: expected the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    return PIL.Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


@contextmanager
def _open_file(source: Any) -> Iterator[BinaryIO]:
    """Give a file of the bytes at a path, in memory or of a file object, at its start, where it can go again."""
    with ExitStack() as stack:
        if isinstance(source, bytes | bytearray | memoryview):
            file: BinaryIO = io.BytesIO(source)
        else:
            file = stack.enter_context(Path(source).open("rb")) if isinstance(source, str | os.PathLike) else source
        try:
            file.seek(0)
        except (AttributeError, io.UnsupportedOperation):  # a pipe
            file = io.BytesIO(file.read())
        yield file


def _check_head(file: BinaryIO, name: str) -> None:
    """Refuse what would keep Pillow busy while it opens the file, and a JPEG of many scans; go back to the start."""
    head = file.read(MAX_PPM_HEAD)
    if head.startswith(_START_OF_IMAGE):
        content = head + file.read()
        _check_limit(name, "scans in a JPEG", _count_scans(content), MAX_JPEG_SCANS)
        _check_limit(name, "EXIF segments in a JPEG", content.count(b"Exif\0\0"), MAX_JPEG_EXIF)
    elif head.startswith(b"P"):
        PIL.Image.open(io.BytesIO(head), formats=["PPM"]).close()
    elif head[:4] in _TIFF_STARTS:
        _check_limit(name, "values of a tag in a TIFF", max(_tiff_counts(file, head), default=0), MAX_TIFF_VALUES)
    file.seek(0)


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


def _check_work(picture: ImageFile.ImageFile, name: str) -> None:
    """Refuse what is decoded in Python and not small, and pixels that are decoded again and again."""
    pixels = picture.width * picture.height
    tiles = getattr(picture, "tile", [])
    if tiles and tiles[0].codec_name in PIL.Image.DECODERS and picture.fp is not None:
        kind = f"a {picture.format} that Pillow decodes in Python"
        _check_limit(name, f"bytes of {kind}", picture.fp.seek(0, os.SEEK_END), MAX_SLOW_BYTES)
        _check_limit(name, f"pixels of {kind}", pixels, MAX_SLOW_PIXELS)
    boxes = [tile.extents for tile in tiles if tile.extents is not None]
    decoded = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    _check_limit(name, "pixels in all strips together", decoded, pixels * len(picture.getbands()))


def _check_pixels(picture: PIL.Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    tiff_tags = getattr(picture, "tag_v2", {})
    width = max(width, tiff_tags.get(_TIFF_TILE_WIDTH, 0))  # a tile is decoded whole, even beyond the image
    height = max(height, tiff_tags.get(_TIFF_TILE_HEIGHT, 0))
    pixels = width * height
    if pixels > max_pixels:
        raise ImageTooLargeError(f"{name}: expected at most {max_pixels} pixels, got {width} x {height}", pixels)


def _reduce(picture: JpegImageFile, spec: InputSpec) -> None:
    """Have the decoder leave out the detail that resizing would: that saves most of its time and memory."""
    width, height = picture.size
    enough = 4 * max(spec.height, spec.width)  # for either side: EXIF may turn the picture
    for scale in (8, 4, 2):
        # Of a picture that is no multiple, the last pixel would stand for fewer than the others, and all be shifted.
        if width % scale == height % scale == 0 and min(width, height) >= scale * enough:
            picture.draft(None, (width // scale, height // scale))
            return


def _to_mode(picture: PIL.Image.Image, channels: int, name: str) -> PIL.Image.Image:
    """Return a decoded picture upright, opaque, and as 8-bit grey ("L") or "RGB"."""
    # Pillow opens a PGM file of 16 bits as 32-bit integers.
    is_16_bit = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM")
    if picture.mode in ("I", "F") and not is_16_bit:
        kind = "integers" if picture.mode == "I" else "floats"
        raise ImageError(f"{name}: expected 8 or 16 bits per channel, got 32-bit {kind}")
    if picture.mode == "P" and picture.palette is None:
        raise ImageError(f"{name}: expected a palette for the picture's indices, got none")
    picture = _upright(picture)
    if is_16_bit:
        picture = _to_8_bit(picture)
    if picture.mode == "La":  # Pillow converts premultiplied grey to this alone
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


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        is_upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return picture if is_upright else ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001  # damaged EXIF says nothing of the orientation, and the pixels are decoded already
        return picture


def _to_8_bit(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return 16-bit grey as 8-bit grey, value / 257 rounded, and the value that a PNG calls transparent as white."""
    values = np.asarray(picture)
    grey = np.empty(values.shape, np.uint8)
    for row, row_values in enumerate(values):  # 32-bit values of all would take as much memory as the picture twice
        grey[row] = (row_values.astype(np.uint32) + 128) // 257
    if "transparency" in picture.info:
        grey[values == picture.info["transparency"]] = 255
    return PIL.Image.fromarray(grey)


def _fit(picture: PIL.Image.Image, spec: InputSpec) -> PIL.Image.Image:
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
