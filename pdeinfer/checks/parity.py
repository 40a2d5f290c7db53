"""Compares the probabilities of two implementations of one classifier."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.report import Comparison, Report

Classify: TypeAlias = Callable[[Array], Array]  # uint8 (N, H, W, C) -> float32 probabilities (N, classes)

# The largest absolute difference of two probabilities that float32 arithmetic in another order may cause. The measured
# differences of each model are in its card.
TOLERANCE = 1e-5

_SIZEABLE = 1e-3  # smaller probabilities have no meaningful relative difference


def compare(
    reference: tuple[str, Classify],
    candidate: tuple[str, Classify],
    images: Mapping[str, Array],
    *,
    batch_sizes: Sequence[int] = (1, 2, 7, 64),
    tolerance: float | None = TOLERANCE,
) -> Report:
    """Run both implementations on the same images and compare their probabilities.

    A row's `max_relative` is the largest |candidate - reference| / reference over probabilities of at least 0.001.

    Args:
        reference, candidate: a name and a function, uint8 (N, H, W, C) -> float32 (N, classes), each.
        images: sets of uint8 images (N, H, W, C) by name. The reference runs once, at the largest batch size. The
            candidate runs at that size on the whole set, and at every other size on its first 16 images.
        tolerance: the largest absolute difference that passes; None: any finite one.
    """
    reference_name, reference_classify = reference
    candidate_name, candidate_classify = candidate
    comparisons = []
    largest = max(batch_sizes)
    for name, batch in images.items():
        expected = in_batches(reference_classify, batch, largest)
        for size in batch_sizes:
            chosen = batch if size == largest else batch[:16]
            found = in_batches(candidate_classify, chosen, size)
            comparisons.append(_compare_arrays(name, size, expected[: len(chosen)], found))
    return Report("probabilities", reference_name, candidate_name, tolerance, tuple(comparisons))


def synthetic_images(height: int, width: int, channels: int, seed: int = 0) -> dict[str, Array]:
    """Return random and extreme uint8 images (N, height, width, channels) by name."""
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    noise = rng.integers(0, 256, (128, *shape), dtype=np.uint8)
    # Low-frequency noise resembles photographs: convolutions respond to it as they do not to white noise.
    coarse = rng.integers(0, 256, (128, -(-height // 4), -(-width // 4), channels), dtype=np.uint8)
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    spot = np.zeros(shape, np.uint8)
    spot[height // 2, width // 2] = 255
    extreme = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), spot, 255 - spot])
    binary = (rng.integers(0, 2, (32, *shape)) * 255).astype(np.uint8)
    return {"noise": noise, "smooth noise": smooth, "black-and-white noise": binary, "extremes": extreme}


def in_batches(classify: Classify, images: Array, size: int) -> Array:
    """Classify images in runs of at most `size`; return the probabilities as float64 (N, classes)."""
    parts = [classify(images[start : start + size]) for start in range(0, len(images), size)]
    return np.concatenate(parts).astype(np.float64)


def _compare_arrays(name: str, batch_size: int, expected: Array, found: Array) -> Comparison:
    difference = np.abs(found - expected)
    sizeable = ~(expected < _SIZEABLE)  # keeps NaN, for which every comparison is false
    return Comparison(
        name=name,
        batch_size=batch_size,
        count=len(expected),
        max_absolute=float(difference.max()),
        max_relative=float((difference[sizeable] / expected[sizeable]).max(initial=0.0)),
        top1_equal=int((expected.argmax(axis=1) == found.argmax(axis=1)).sum()),
    )
