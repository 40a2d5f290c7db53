"""Labelled images, and random splits that keep the share of each class."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, height, width, channels), with their labels, int64 (N,)."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set's images.

    Attributes:
        train: for learning.
        test: for the one evaluation of a finished training.
        validation: for choosing the best epoch; None if a part of `train` is to be held out for it.
    """

    train: Split
    test: Split
    validation: Split | None = None


def hold_out(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
    """Split at random into the rest and a `fraction` of each class, by `stratified_choice`."""
    chosen = stratified_choice(split.labels, fraction, seed)
    return Split(split.images[~chosen], split.labels[~chosen]), Split(split.images[chosen], split.labels[chosen])


def stratified_choice(labels: Array, fraction: float, seed: int = 0) -> Array:
    """Choose a `fraction` of each class at random: at least one image of two or more, and never all.

    Args:
        labels: int (N,).

    Returns:
        bool (N,), the same for the same seed.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen
