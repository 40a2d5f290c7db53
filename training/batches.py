"""Batches of training images, shuffled and augmented by a function of only the seed, epoch and index."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

    With `balance`, float32 weights (N,) follow. No random state is kept between batches: a resumed training sees
    exactly what an uninterrupted one would. Set `epoch` before each epoch.

    Args:
        split: the images and labels; the images may be mapped from a file.
        classes: number of classes.
        batch_size: images in a batch; an incomplete last batch is left out.
        seed: of the shuffling and the augmentation.
        augmentation: none by default. Labels are one-hot, or mixed by mixup.
        balance: weigh each image by N / (classes x images of its class), a mixed one by the mixture of both weights.
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
        balance: bool = False,
        teacher: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.images = split.images
        self.labels = np.eye(classes, dtype=np.float32)[split.labels]
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._order_of = -1, np.empty(0, int)  # an epoch, and the order of its images
        self.augmentation = augmentation
        counts = np.maximum(self.labels.sum(axis=0), 1)
        self.class_weights = len(split) / (classes * counts) if balance else None
        self.teacher = teacher

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if self._order_of[0] != self.epoch:  # shuffling takes long compared with a step of a small network
            rng = np.random.default_rng([self.seed, self.epoch])
            self._order_of = self.epoch, rng.permutation(len(self.labels))
        chosen = self._order_of[1][index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        images = _random_crops(self.images[chosen], self.augmentation.crop_padding, rng)
        if self.augmentation.flip:
            mirrored = rng.integers(2, size=len(chosen)).astype(bool)
            images[mirrored] = images[mirrored, :, ::-1]
        labels = self.labels[chosen]
        if alpha := self.augmentation.mixup:
            ratio = rng.beta(alpha, alpha, size=len(chosen)).astype(np.float32)
            images = np.rint(_mixed(images, ratio[:, np.newaxis, np.newaxis, np.newaxis])).astype(np.uint8)
            labels = _mixed(labels, ratio[:, np.newaxis])
        weights = () if self.class_weights is None else (labels @ self.class_weights,)
        if self.teacher is not None:
            labels = np.concatenate([labels, self.teacher(images)], axis=1)
        return images, labels, *weights


class EvaluationBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """Yield images and one-hot labels in their order, without holding a second copy of them.

    Args: as for `Batches`; an incomplete last batch is included.
    """

    def __init__(self, split: Split, *, classes: int, batch_size: int) -> None:
        super().__init__()
        self.split = split
        self.identity = np.eye(classes, dtype=np.float32)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return np.asarray(self.split.images[chosen]), self.identity[self.split.labels[chosen]]


def _random_crops(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Return each image, (N, H, W, C), shifted by at most `padding` pixels, with black beside it."""
    count, height, width, _ = images.shape
    crops: np.ndarray[Any, Any] = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0))), (height, width), axis=(1, 2)
    )  # as a view: (N, crops_y, crops_x, C, H, W)
    y = rng.integers(crops.shape[1], size=count)
    x = rng.integers(crops.shape[2], size=count)
    return np.ascontiguousarray(crops[np.arange(count), y, x].transpose(0, 2, 3, 1))


def _mixed(values: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Mix each value with one from the other end of the batch."""
    mixed: np.ndarray = ratio * values + (1 - ratio) * values[::-1]
    return mixed
