"""Batches of training images, shuffled and augmented by a function of only the seed, epoch and index."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from pdeinfer.datasets import Split


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied, as in `training.recipes.Recipe`."""

    crop_padding: int = 0
    flip: bool = False
    mixup: float = 0.0


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """Yield the batches of one epoch after another: uint8 images (N, H, W, C) and float32 labels (N, classes).

    No random state is kept between batches: a resumed training sees exactly what an uninterrupted one would. Set
    `epoch` before each epoch.

    Args:
        split: the images and labels.
        classes: number of classes.
        batch_size: images in a batch; an incomplete last batch is left out.
        seed: of the shuffling and the augmentation.
        augmentation: none by default. Labels are one-hot, or mixed by mixup.
        teacher: returns the logits (N, classes) of augmented images, which then follow the labels: (N, 2 * classes).
    """

    def __init__(
        self,
        split: Split,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        augmentation: Augmentation = Augmentation(),
        teacher: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.labels = np.eye(classes, dtype=np.float32)[split.labels]
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._order_of = -1, np.empty(0, int)  # an epoch, and the order of its images
        self.augmentation = augmentation
        self.teacher = teacher
        pixels = augmentation.crop_padding
        padding = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
        # Every crop of every image, as a view: (N, crops_y, crops_x, C, H, W).
        self.crops = np.lib.stride_tricks.sliding_window_view(
            np.pad(split.images, padding), split.images.shape[1:3], axis=(1, 2)
        )

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._order_of[0] != self.epoch:  # shuffling takes long compared with a step of a small network
            rng = np.random.default_rng([self.seed, self.epoch])
            self._order_of = self.epoch, rng.permutation(len(self.labels))
        chosen = self._order_of[1][index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        _, crops_y, crops_x, *_ = self.crops.shape
        y = rng.integers(crops_y, size=len(chosen))
        x = rng.integers(crops_x, size=len(chosen))
        images = self.crops[chosen, y, x].transpose(0, 2, 3, 1)  # (N, H, W, C)
        if self.augmentation.flip:
            mirrored = rng.integers(2, size=len(chosen)).astype(bool)
            images[mirrored] = images[mirrored, :, ::-1]
        images, labels = np.ascontiguousarray(images), self.labels[chosen]
        if alpha := self.augmentation.mixup:
            ratio = rng.beta(alpha, alpha, size=len(chosen)).astype(np.float32)
            images = np.rint(_mixed(images, ratio[:, np.newaxis, np.newaxis, np.newaxis])).astype(np.uint8)
            labels = _mixed(labels, ratio[:, np.newaxis])
        if self.teacher is not None:
            labels = np.concatenate([labels, self.teacher(images)], axis=1)
        return images, labels


def _mixed(values: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Mix each value with one from the other end of the batch."""
    mixed: np.ndarray = ratio * values + (1 - ratio) * values[::-1]
    return mixed
