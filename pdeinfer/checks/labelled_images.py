"""The labelled images that a model is measured on: arrays of a data set, or files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.datasets import Split
from pdeinfer.errors import ImageError
from pdeinfer.images.damage import without_frames
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.spec.networks import InputSpec

_PICTURE_SIDE = 128  # pixels, at least


class LabelledImages(Protocol):
    """Images with the indices of their classes."""

    @property
    def labels(self) -> Array:
        """The class of every image, int64 (N,)."""

    def name(self, index: int) -> str:
        """Return what to call an image."""

    def read(self, part: range) -> Iterator[Array | ImageError]:
        """Yield images for the network, uint8 (height, width, channels); for those that cannot be read, errors."""

    def picture(self, index: int) -> Array:
        """Return the part of an image that the network sees, uint8 (height, width, channels), for people."""


@dataclass(frozen=True, slots=True)
class SplitImages:
    """The images of a split of a data set. Its members are described in `LabelledImages`."""

    split: Split

    @property
    def labels(self) -> Array:
        return self.split.labels

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, part: range) -> Iterator[Array | ImageError]:
        yield from self.split.images[part.start : part.stop]

    def picture(self, index: int) -> Array:
        pixels: Array = self.split.images[index]
        return pixels


@dataclass(frozen=True, slots=True)
class FileImages:
    """Image files, decoded when they are wanted, as prediction does. Its members are described in `LabelledImages`.

    Attributes:
        files: paths and class indices.
        spec: of the network's images.
    """

    files: Sequence[tuple[Path, int]]
    spec: InputSpec

    @property
    def labels(self) -> Array:
        return np.array([label for _, label in self.files], np.int64)

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    def read(self, part: range) -> Iterator[Array | ImageError]:
        with IsolatedDecoders() as decoders, ThreadPoolExecutor(available_cpus()) as pool:
            decode = partial(self._decode, decoders)
            yield from pool.map(decode, (self.files[index][0] for index in part))

    def picture(self, index: int) -> Array:
        scale = -(-_PICTURE_SIDE // max(self.spec.height, self.spec.width))
        spec = replace(
            self.spec,
            height=scale * self.spec.height,
            width=scale * self.spec.width,
            channels=3,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
        )
        with IsolatedDecoders() as decoders:
            return decoders.to_array_where_needed(self.files[index][0], spec)

    def _decode(self, decoders: IsolatedDecoders, path: Path) -> Array | ImageError:
        try:
            return decoders.to_array_where_needed(path, self.spec)
        except ImageError as error:
            return without_frames(error)
