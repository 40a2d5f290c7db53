"""Labelled images, and random splits of each class."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdeinfer.arrays import Array


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


def sample_indices(count: int, at_most: int) -> Array:
    """Return the indices, sorted, of a random sample of `count` images, always the same."""
    return np.sort(np.random.default_rng(0).permutation(count)[:at_most])


def choice_by_name(names: Sequence[str], labels: Array, fraction: float, salt: str) -> Array:
    """Choose about a `fraction` of each class by hashes of the images' names.

    Other images do not change the choice, except that it has at least one image of two or more, and never all.

    Args:
        names: of the images.
        labels: int (N,).
        salt: makes choices differ from each other.

    Returns:
        bool (N,), the same for the same names and salt.
    """
    places = np.array([_place(f"{salt}/{name}") for name in names])
    chosen = places < fraction
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        in_order = members[np.argsort(places[members], kind="stable")]
        chosen[in_order[0]] = True
        chosen[in_order[-1]] = False
    return chosen


def _place(text: str) -> float:
    """Return a number from 0 to 1, uniformly distributed over different texts."""
    digest = hashlib.sha256(text.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
