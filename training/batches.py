"""Batches of training images: shuffled and augmented as a function of seed, epoch and index alone."""

import keras
import numpy as np

from pdeinfer.datasets import Split


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """The batches of one epoch after another: uint8 images (N, H, W, C) and one-hot float32 labels (N, classes).

    Nothing random is kept between batches, so that a resumed training sees exactly what an uninterrupted one would.
    Whoever trains sets `epoch` before each one.

    Args:
        split: the images and labels.
        classes: number of classes.
        batch_size: images in a batch; an incomplete last batch is left out.
        seed: of the shuffling and the augmentation.
        crop_padding, flip: the augmentation, as in `training.recipes.Recipe`.
    """

    def __init__(
        self,
        split: Split,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.labels = np.eye(classes, dtype=np.float32)[split.labels]
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._order_of = -1, np.empty(0, int)  # an epoch, and the order of its images
        self.flip = flip
        padding = ((0, 0), (crop_padding, crop_padding), (crop_padding, crop_padding), (0, 0))
        # Every crop of every image, as a view: (N, crops_y, crops_x, C, H, W).
        self.crops = np.lib.stride_tricks.sliding_window_view(
            np.pad(split.images, padding), split.images.shape[1:3], axis=(1, 2)
        )

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._order_of[0] != self.epoch:  # shuffling takes long beside a step of a small network
            rng = np.random.default_rng([self.seed, self.epoch])
            self._order_of = self.epoch, rng.permutation(len(self.labels))
        chosen = self._order_of[1][index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        _, crops_y, crops_x, *_ = self.crops.shape
        y = rng.integers(crops_y, size=len(chosen))
        x = rng.integers(crops_x, size=len(chosen))
        images = self.crops[chosen, y, x].transpose(0, 2, 3, 1)  # (N, H, W, C)
        if self.flip:
            mirrored = rng.integers(2, size=len(chosen)).astype(bool)
            images[mirrored] = images[mirrored, :, ::-1]
        return np.ascontiguousarray(images), self.labels[chosen]
