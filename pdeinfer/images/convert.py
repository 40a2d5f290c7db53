"""Convert any image to the uint8 array (height, width, channels) that a network takes.

The rule, in this order:

1. The file is decoded.
   - What: the first frame of a BMP, GIF, JPEG, PNG, PPM (PBM, PGM), TIFF or WEBP file; a Pillow image is taken at its
     current frame. An AVIF or HEIC file is decoded, where Pillow or the extra [heic] can, only by
     `pdeinfer.images.isolation`.
   - Damage: a file is accepted if all of its pixels decode, even if its end marker is missing or a chunk other than
     the pixels is damaged. If Pillow warns of it where warnings are errors, the file is refused: its orientation is not
     known. A PNG must have the checksum behind its compressed pixels, right or wrong.
   - Missing pixels: a file that lacks pixels is refused, unless the program has set
     `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`: this switch of the whole process lets Pillow make them up. A JPEG that has
     its end marker may lack a few blocks; if it has several scans, the rest of the last one.
   - Reduction: a JPEG file whose sides are multiples of 8, 4 or 2 is decoded at that fraction of its size, if that
     leaves four times the network's input.
   - Limits: an image that takes more than `MAX_IMAGE_PIXELS` to decode is refused before any pixel is decoded: a JPEG
     of one scan counts at its reduced size, a TIFF at least one whole tile. So is a file that is disproportionately
     slow to decode: see `pdeinfer.images.limits`. A JPEG, PNG or WEBP file, a pipe and a file object may have at most
     `MAX_FILE_BYTES`, 256 MiB.
2. The EXIF orientation is applied.
3. Grey of 9 to 16 bits becomes 8-bit: value / maximum * 255, rounded. 16-bit colour becomes its high bytes. 32-bit
   integers, signed integers and floats are refused: their range is unknown. So are the layouts of a TIFF that Pillow
   would decode wrongly: see `pdeinfer.images.tiff`.
4. Transparent pixels are composited on white.
5. Every colour space (palettes, CMYK, YCbCr, LAB, HSV) becomes RGB, and RGB becomes grey where the network takes grey:
   (299 R + 587 G + 114 B) / 1000. Colour profiles are ignored.
6. An image of another size is resized, bilinear with antialiasing, as the network's `fit` says: "crop" scales the
   shorter side and crops the middle, "pad" scales the longer side and pads with black on both sides, "stretch" does
   neither. An image of the right size keeps its pixels exactly.
"""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageFile
from numpy.typing import NDArray
from PIL._util import DeferredError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pdeinfer.errors import ImageError, PdeinferError
from pdeinfer.images import formats, repair, tiff
from pdeinfer.images.cost import Estimate, decoding_bytes
from pdeinfer.images.damage import AnyPath, decoding, is_unreadable, refusing_warnings
from pdeinfer.images.jpeg import JpegStructure, check_jpeg, end_jpeg, open_end
from pdeinfer.images.limits import GUARDED, MAX_IMAGE_PIXELS, WorkLimits, check_pixels, check_ppm, check_work
from pdeinfer.images.pixels import fit, to_mode, transparent_grey
from pdeinfer.images.reading import open_path, read_file, read_stream
from pdeinfer.spec.networks import InputSpec

_LOCK = "_pdeinfer_lock"  # an attribute of Pillow images


class BinaryFile(Protocol):
    """A file object that reads bytes; `seek` takes it to its start, if it has that."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


# An array must be of uint8, which OpenCV's type for images does not say.
ImageLike: TypeAlias = AnyPath | bytes | bytearray | memoryview | BinaryFile | PIL.Image.Image | NDArray[Any]


class NeedsIsolationError(ImageError):
    """An AVIF or HEIC image, which only `pdeinfer.images.isolation` decodes."""


def to_array(
    image: ImageLike, spec: InputSpec, name: str | None = None, *, max_pixels: int = MAX_IMAGE_PIXELS
) -> NDArray[np.uint8]:
    """Return an image as the array that a network with the input `spec` takes, by the rule in this module's docstring.

    Args:
        image: a path; a file's bytes; a binary file object, read from its start if it can seek, and left open; a Pillow
            image; or a uint8 array (H, W) or (H, W, 1) grey, (H, W, 3) RGB, or (H, W, 4) RGBA. Threads must not share a
            file object. They may share a Pillow image that nothing else uses or changes meanwhile.
        spec: the size, channels and fit wanted.
        name: the image's name in errors, e.g. "image 3 of 10"; a path is named as well.
        max_pixels: the most pixels that decoding may take, counted as in step 1.

    Returns:
        A new uint8 array (spec.height, spec.width, spec.channels).

    Raises:
        ImageTooLargeError: decoding takes more than `max_pixels`, or the file is too large.
        ImageError: not an image of the kinds above, a damaged one, or a path that cannot be opened or read; the message
            names it. So is a file object whose `seek` or `read` raises an exception of the standard library, such as
            `zipfile.BadZipFile` or ConnectionError; any other, which may be a signal handler's, passes.
        OSError: the system failed, e.g. with too many open files, or a file object's read timed out.
    """
    with open_image(image, spec, name, max_pixels=max_pixels) as opened:
        return opened.to_array()


@contextmanager
def open_image(
    image: ImageLike,
    spec: InputSpec,
    name: str | None = None,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    limits: WorkLimits = GUARDED,
) -> Iterator["OpenedImage"]:
    """Read an image's header; its pixels are decoded inside the `with` block, if at all.

    Arguments and errors are those of `to_array`.

    Args:
        limits: what a file may hold that is disproportionately slow to decode.
    """
    name = describe(image, name)
    with refusing_warnings(name), ExitStack() as stack:
        structure, other_ending = None, None
        if isinstance(image, PIL.Image.Image):
            picture = image
            # Pillow decodes it, and reads its EXIF, at first use: no two threads may do that at a time.
            stack.enter_context(vars(picture).setdefault(_LOCK, threading.RLock()))
            if tiff.has_tags(picture):
                tiff.check_layout(picture, name)
        elif isinstance(image, np.ndarray):
            picture = _from_array(image, name)
        elif isinstance(image, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(image, "read"):
            file = stack.enter_context(_open_file(image, name))
            picture, structure, other_ending = _open_encoded(file, name, max_pixels, limits)
            stack.enter_context(picture)
        else:
            raise ImageError(
                f"{name}: expected a path, bytes, a binary file object, a Pillow image or a uint8 array, "
                f"got {_type_name(image)}"
            )
        if 0 in picture.size:
            raise ImageError(f"{name}: expected an image with pixels, got {picture.width} x {picture.height}")
        scans = structure.scans if structure else 0
        opened = OpenedImage(picture, tiff.whole_size(picture), scans, other_ending, spec, name, max_pixels)
        size = opened.reduce()
        check_pixels(size, name, max_pixels)
        yield opened


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image whose header has been read and whose pixels have not been decoded.

    Attributes:
        picture: the image, as Pillow opens it.
        whole_size: its width and height before a JPEG is reduced, at least those of a TIFF's tile.
        jpeg_scans: the number of scans of a JPEG file; 0 for other sources.
        other_ending: a JPEG file without its end marker, completed differently from `picture`; None for others.
        spec: the array wanted.
        name: the image's name in errors.
        max_pixels: the most pixels that decoding may take.
    """

    picture: PIL.Image.Image
    whole_size: tuple[int, int]
    jpeg_scans: int
    other_ending: bytes | None
    spec: InputSpec
    name: str
    max_pixels: int

    def estimate(self) -> Estimate:
        """Estimate from the header what `to_array` takes."""
        cost = decoding_bytes(self.picture, self.whole_size, self.jpeg_scans)
        return Estimate(cost if self.other_ending is None else 2 * cost, *self.whole_size)

    def to_array(self) -> NDArray[np.uint8]:
        """Decode the image, as the function `to_array` says."""
        transparent = transparent_grey(self.picture, self.name)
        try:
            with decoding(self.name, self.picture.format, self.max_pixels):
                self.picture.load()
        except ImageError as error:
            if _is_closed(self.picture):
                problem = "expected an open Pillow image, got one that was closed or verified: open it again"
                raise ImageError(f"{self.name}: {problem}") from error
            raise
        if self.other_ending is not None:
            self._check_whole(self.other_ending)
        converted = fit(to_mode(self.picture, self.spec.channels, transparent, self.name), self.spec)
        return np.array(converted, np.uint8).reshape(self.spec.height, self.spec.width, self.spec.channels)

    def reduce(self) -> tuple[int, int]:
        """Set a JPEG's decoder to the smallest scale that suffices; return the width and height it holds in memory."""
        is_reducible = isinstance(self.picture, JpegImageFile) and self.jpeg_scans > 0
        if is_reducible:
            _reduce(self.picture, self.spec)
        # With several scans the decoder holds all coefficients until the last one, at every scale.
        return self.picture.size if is_reducible and self.jpeg_scans == 1 else self.whole_size

    def _check_whole(self, other_ending: bytes) -> None:
        """Raise ImageError if the two completions of a JPEG decode to different pixels: some are missing."""
        with JpegImageFile(io.BytesIO(other_ending)) as other:
            _reduce(other, self.spec)
            with decoding(self.name, "JPEG", self.max_pixels):
                other.load()
            hashes = [hashlib.sha256(picture.tobytes()).digest() for picture in (self.picture, other)]
        if hashes[0] != hashes[1]:
            raise _truncated(self.name)


def describe(image: object, name: str | None = None) -> str:
    """Return what errors call an image: a path is named beside the name that its caller has for it."""
    if isinstance(image, str | os.PathLike):
        path = os.fsdecode(image)
        return f"{name} ({path})" if name else path
    if name:
        return name
    if isinstance(image, PIL.Image.Image):
        return "Pillow image"
    if isinstance(image, np.ndarray):
        return "array"
    return "file object" if hasattr(image, "read") else type(image).__name__


def _type_name(image: object) -> str:
    kind = type(image)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_closed(picture: PIL.Image.Image) -> bool:
    if isinstance(picture, ImageFile) and picture.tile:  # not decoded yet
        return picture.fp is None or getattr(picture.fp, "closed", False)
    return isinstance(getattr(picture, "_im", None), DeferredError)


def _open_encoded(
    file: BinaryIO, name: str, max_pixels: int, limits: WorkLimits
) -> tuple[PIL.Image.Image, JpegStructure | None, bytes | None]:
    """Open the image in a file unless it is expensive to decode, without damaged chunks other than the pixels.

    Returns:
        The image, the structure of a JPEG, and a JPEG without its end marker as `OpenedImage.other_ending`.
    """
    head = file.read(formats.HEAD_BYTES)
    file.seek(0)
    kind = formats.recognise(head)
    structure, other_ending, kind_in_words = None, None, kind
    match kind:
        case None:
            raise ImageError(f"{name}: expected {formats.EXPECTED}, got {formats.describe_foreign(head)}")
        case "JPEG":
            content = read_file(file, name)
            structure = check_jpeg(content, name, limits)
            if PIL.ImageFile.LOAD_TRUNCATED_IMAGES:
                pass
            elif not structure.has_all_scans:
                raise _truncated(name)
            elif structure.end is None:
                content, other_ending = end_jpeg(content)
            elif structure.is_simple:
                content = open_end(content, structure.end)
            file = io.BytesIO(content)
        case "PNG":
            file = io.BytesIO(repair.clean_png(read_file(file, name), name, limits.png_chunks))
        case "WEBP":
            file = io.BytesIO(repair.end_webp(read_file(file, name), limits.webp_chunks))
        case _ if kind in formats.ISOLATED and limits.heif_bytes == 0:
            raise NeedsIsolationError(
                f"{name}: AVIF and HEIC images are decoded only in a process with limits, by the server and by "
                "the commands of pdeinfer: convert it to JPEG or PNG, or pass the image that Pillow opens"
            )
        case "TIFF":
            kind_in_words = tiff.check_tags(file, name, limits.tiff_values)
    with decoding(name, kind_in_words, max_pixels):
        if kind == "PPM":
            check_ppm(file, limits.ppm_head)
        file.seek(0)
        picture = _open_picture(file, kind)
    check_work(picture, name, limits)
    if isinstance(picture, TiffImageFile):
        tiff.check_layout(picture, name)
    return picture, structure, other_ending


def _open_picture(file: BinaryIO, kind: str) -> ImageFile:
    if kind == "JPEG":  # PIL.Image.open would refuse a large one whatever the size that it is decoded at
        return JpegImageFile(file)
    if kind == "HEIF":  # without registering it for the whole process
        from pillow_heif import HeifImageFile

        return HeifImageFile(file)  # type: ignore[no-untyped-call]
    return PIL.Image.open(file, formats=[kind])


def _from_array(array: NDArray[Any], name: str) -> PIL.Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: expected pixels of dtype uint8, 0 to 255, got {array.dtype}")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)) or array.size == 0:
        raise ImageError(
            f"{name}: expected the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or for several images "
            f"(N, H, W, C), got {array.shape}"
        )
    return PIL.Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


@contextmanager
def _open_file(source: Any, name: str) -> Iterator[BinaryIO]:
    """Open the bytes at a path, in memory or of a file object, as a file that can seek, at its start."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(bytes(source))  # a copy, unless it is bytes; a memoryview may have gaps
    elif isinstance(source, str | os.PathLike):
        with open_path(source, name) as file:
            yield file if file.seekable() else io.BytesIO(read_stream(file, name))  # a pipe cannot seek
    else:
        yield io.BytesIO(_read_from_start(source, name))


def _read_from_start(file: Any, name: str) -> bytes:
    try:
        if getattr(file, "seekable", lambda: hasattr(file, "seek"))():
            file.seek(0)
        return read_stream(file, name)
    except PdeinferError:
        raise
    except ValueError as error:  # it is closed, or decodes text
        raise ImageError(f"{name}: expected an open file object in binary mode: {error}") from error
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise ImageError(f"{name}: the file object cannot be read ({type(error).__name__}: {error})") from error


def _reduce(picture: PIL.Image.Image, spec: InputSpec) -> None:
    width, height = picture.size
    enough = 4 * max(spec.height, spec.width)  # for either side: EXIF may turn the picture
    for scale in (8, 4, 2):
        # Otherwise the last pixel of a side would stand for fewer pixels than the others, and shift the picture.
        if width % scale == height % scale == 0 and min(width, height) >= scale * enough:
            picture.draft(None, (width // scale, height // scale))
            return


def _truncated(name: str) -> ImageError:
    return ImageError(f"{name}: expected {formats.EXPECTED}, got a truncated JPEG: some of its pixels are missing")
