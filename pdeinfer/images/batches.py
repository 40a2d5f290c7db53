"""Decodes any number of images in batches, each with its error if it cannot be read."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from pdeinfer.errors import ImageError
from pdeinfer.images.convert import ImageLike, to_array
from pdeinfer.images.damage import without_frames
from pdeinfer.spec.networks import InputSpec

Channels: TypeAlias = Literal["rgb", "bgr"]

Decoded: TypeAlias = tuple[NDArray[np.uint8] | ImageError, str | None]  # pixels or an error, and the path


@dataclass(frozen=True, slots=True)
class BatchDecoder:
    """Decodes images for one network.

    Attributes:
        spec: of the network's images.
        channels: the order of the colours in arrays: "rgb", or "bgr" as OpenCV has it. Other images have an order of
            their own.
    """

    spec: InputSpec
    channels: Channels

    def decode(
        self, images: Iterable[ImageLike], batch_size: int, *, ends_at_error: bool = False
    ) -> Iterator[list[Decoded]]:
        """Yield the images in batches, decoded, or their errors; with `ends_at_error`, none after the first error.

        If anything else fails, such as the iterable itself, the images before it come first.
        """
        of_count = _of_count(images)
        batch: list[Decoded] = []
        try:
            for number, image in enumerate(images, 1):
                try:
                    batch.append((self.to_array(image, f"image {number}{of_count}"), path_of(image)))
                except ImageError as error:
                    if ends_at_error:
                        batch.append((error, None))
                        break
                    batch.append((without_frames(error), None))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
        except Exception:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    def stack(self, images: Iterable[ImageLike], batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the images in batches, uint8 (N, H, W, C), or raise the first ImageError."""
        shape = (self.spec.height, self.spec.width, self.spec.channels)
        if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == shape:
            for start in range(0, len(images), batch_size):
                yield self.to_rgb(images[start : start + batch_size])
            return
        for batch in self.decode(images, batch_size, ends_at_error=True):
            pixels = []
            for image, _ in batch:
                if isinstance(image, ImageError):
                    raise image
                pixels.append(image)
            yield np.stack(pixels)

    def to_array(self, image: ImageLike, name: str | None = None) -> NDArray[np.uint8]:
        """Return an image as `pdeinfer.images.convert.to_array` does."""
        return to_array(self.to_rgb(image) if isinstance(image, np.ndarray) else image, self.spec, name)

    def to_rgb(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels (..., C) in the order RGB or RGBA; grey ones, and arrays of other shapes, as they are."""
        if self.channels == "rgb" or pixels.ndim < 3 or pixels.shape[-1] not in (3, 4):
            return pixels
        return pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]


def path_of(image: object) -> str | None:
    """Return the path of an image, or None if it is no file's path."""
    return str(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else None


def is_one_image(images: Any) -> bool:
    """Return whether `images` is a single image: iterating over it would yield rows, bytes or lines."""
    if isinstance(images, np.ndarray):
        holds_images = images.dtype.kind in "OTU" and images.ndim == 1  # objects and strings, such as paths
        return images.ndim != 4 and not holds_images
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image) or hasattr(images, "read"):
        return True
    is_sequence = hasattr(images, "__getitem__") and hasattr(images, "__len__")  # such as PyTorch's data sets
    return not (isinstance(images, Iterable) or is_sequence)


def _of_count(images: Any) -> str:
    try:
        return f" of {len(images)}"
    except TypeError:  # an iterator, or what shows the progress of one
        return ""
