"""Any image as the uint8 array (height, width, channels) that a network takes.

The rule, in this order:

1. A file is decoded if it is a BMP, GIF, JPEG, PNG, PPM (PBM, PGM), TIFF or WEBP, to its first frame; a Pillow image is
   taken at its current frame. A JPEG file whose sides are multiples of 8, 4 or 2 is decoded at that fraction of its
   size, if that leaves four times the network's input. An image that takes more than `MAX_IMAGE_PIXELS` to decode, as
   `decoded_pixels` counts them, is refused before any pixel is decoded, and so is what keeps the decoder busy for much
   longer than its size says: see `pdeinfer.images.limits`.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.images.cost import decoding_bytes
from pdeinfer.images.limits import MAX_IMAGE_PIXELS, check_head, check_pixels, check_work, whole_size
from pdeinfer.spec.presets import InputSpec

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | PIL.Image.Image | NDArray[np.uint8]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

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
        max_pixels: the most pixels that decoding may take, as `decoded_pixels` counts them.

    Returns:
        A new uint8 array (spec.height, spec.width, spec.channels).

    Raises:
        ImageTooLargeError: decoding takes more than `max_pixels`.
        ImageError: not an image of the kinds above, or a truncated or damaged one; the message names it.
    """
    with open_image(image, spec, name, max_pixels=max_pixels) as opened:
        return opened.to_array()


@contextmanager
def open_image(
    image: ImageLike, spec: InputSpec, name: str | None = None, *, max_pixels: int = MAX_IMAGE_PIXELS
) -> Iterator["OpenedImage"]:
    """Read an image's header; its pixels are decoded inside the `with` block, if at all.

    Arguments and errors are those of `to_array`.
    """
    name = _describe(image, name)
    with _reading(name, max_pixels), _open(image, name) as opened:
        whole = whole_size(opened.picture)
        check_pixels(_reduce(opened, spec), name, max_pixels)
        yield OpenedImage(opened.picture, whole, opened.jpeg_scans, spec, name)


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image whose header has been read and whose pixels have not been decoded."""

    picture: PIL.Image.Image
    whole_size: tuple[int, int]
    jpeg_scans: int
    spec: InputSpec
    name: str

    def decoding_bytes(self) -> int:
        """Return the most memory that `to_array` takes, estimated from the header."""
        return decoding_bytes(self.picture, self.whole_size, self.jpeg_scans)

    def to_array(self) -> NDArray[np.uint8]:
        """Decode the image, as the function `to_array` says."""
        self.picture.load()
        converted = _fit(_to_mode(self.picture, self.spec.channels, self.name), self.spec)
        return np.array(converted, np.uint8).reshape(self.spec.height, self.spec.width, self.spec.channels)


def decoded_pixels(image: ImageLike, spec: InputSpec, name: str | None = None) -> int:
    """Return how many pixels `to_array` would hold in memory to decode an image; only the head is decoded.

    A JPEG of one scan counts at the reduced size that it is decoded at. A progressive JPEG counts in full, as its
    decoder holds all of its coefficients. A TIFF counts at least one whole tile.

    Args:
        image, spec, name: as for `to_array`.

    Raises:
        ImageError: the head is not one of an image that can be decoded.
    """
    name = _describe(image, name)
    with _reading(name, MAX_IMAGE_PIXELS), _open(image, name) as opened:
        width, height = _reduce(opened, spec)
        return width * height


@contextmanager
def _reading(name: str, max_pixels: int) -> Iterator[None]:
    """Turn what Pillow raises into an ImageError that names the image."""
    try:
        yield
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

    Names that begin with a dot are left out: macOS leaves such files beside those that it copies.

    Raises:
        ImageError: there is no such folder, or no such file in it.
    """
    folder = Path(folder)
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
        files = sorted(path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file())
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


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture before its pixels are decoded, and the number of scans of a JPEG file (0 for other sources)."""

    picture: PIL.Image.Image
    jpeg_scans: int = 0


@contextmanager
def _open(image: Any, name: str) -> Iterator[_Opened]:
    """Open an image without decoding its pixels, and close it afterwards if it was opened here."""
    if isinstance(image, PIL.Image.Image):
        yield _Opened(image)
    elif isinstance(image, np.ndarray):
        yield _Opened(_from_array(image, name))
    elif isinstance(image, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(image, "read"):
        with _open_file(image) as file:
            scans = check_head(file, name)
            with PIL.Image.open(file, formats=FORMATS) as picture:
                check_work(picture, name)
                yield _Opened(picture, scans)
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


def _reduce(opened: _Opened, spec: InputSpec) -> tuple[int, int]:
    """Set a JPEG's decoder to the smallest scale that suffices, and return the width and height it holds in memory."""
    picture = opened.picture
    whole = whole_size(picture)
    if not (isinstance(picture, JpegImageFile) and opened.jpeg_scans):
        return whole
    width, height = picture.size
    enough = 4 * max(spec.height, spec.width)  # for either side: EXIF may turn the picture
    for scale in (8, 4, 2):
        # Of a picture that is no multiple, the last pixel would stand for fewer than the others, and all be shifted.
        if width % scale == height % scale == 0 and min(width, height) >= scale * enough:
            picture.draft(None, (width // scale, height // scale))
            break
    # With several scans the decoder holds all coefficients until the last one, whatever the scale.
    return whole if opened.jpeg_scans > 1 else picture.size


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
