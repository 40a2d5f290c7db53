"""Compare two implementations of one classifier, and report how far apart they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Classify: TypeAlias = Callable[[Array], Array]  # uint8 (N, H, W, C) -> float32 probabilities (N, classes)

# The largest absolute difference of two probabilities that float32 arithmetic in another order may cause. Measured on
# the bundled models: see the parity report in each one's card.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a candidate's probabilities are from the reference's, on one set of images at one batch size.

    Attributes:
        images: what they are. batch_size: images in a run. count: images compared.
        max_absolute: the largest |candidate - reference|.
        max_relative: the largest |candidate - reference| / reference, over probabilities of at least 1e-3.
        top1_equal: images for which both have the same most probable class.
    """

    images: str
    batch_size: int
    count: int
    max_absolute: float
    max_relative: float
    top1_equal: int


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The comparisons of one candidate with the reference, and whether it passed.

    It passes where no probability differs by more than `tolerance` and every most probable class is the same.
    """

    reference: str
    candidate: str
    tolerance: float
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate equals the reference within the tolerance. A NaN does not."""
        return bool(self.comparisons) and all(
            comparison.max_absolute <= self.tolerance and comparison.top1_equal == comparison.count
            for comparison in self.comparisons
        )

    @property
    def max_absolute(self) -> float:
        """The largest absolute difference of all comparisons."""
        return float(np.max([comparison.max_absolute for comparison in self.comparisons]))  # NaN if any is

    @property
    def summary(self) -> str:
        """One line: how far the candidate is from the reference."""
        same = sum(row.top1_equal for row in self.comparisons) / sum(row.count for row in self.comparisons)
        labels = "" if same == 1 else f", labels {same:.1%} the same"
        return f"{self.candidate} within {self.max_absolute:.1e} of {self.reference}{labels}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; a difference that is no number becomes None."""
        values = asdict(self)
        for comparison in values["comparisons"]:
            for name in ("max_absolute", "max_relative"):
                if not np.isfinite(comparison[name]):
                    comparison[name] = None
        return {"passed": self.passed, **values}

    def __str__(self) -> str:
        """Return a table with a line for each set of images, its batch sizes taken together."""
        lines = [
            f"{self.candidate} against {self.reference}, tolerance {self.tolerance:g}",
            f"  {'images':<22}{'batch sizes':<14}{'compared':>9}{'max |diff|':>12}{'max rel.':>12}{'top-1 equal':>15}",
        ]
        for images in dict.fromkeys(row.images for row in self.comparisons):
            rows = [row for row in self.comparisons if row.images == images]
            count = sum(row.count for row in rows)
            sizes = ", ".join(str(row.batch_size) for row in rows)
            top1 = f"{sum(row.top1_equal for row in rows):,}/{count:,}"
            absolute, relative = np.max([(row.max_absolute, row.max_relative) for row in rows], axis=0)
            lines.append(f"  {images:<22}{sizes:<14}{count:>9,}{absolute:>12.1e}{relative:>12.1e}{top1:>15}")
        return "\n".join([*lines, f"  {'equal' if self.passed else 'NOT EQUAL'}"])


def compare(
    reference: tuple[str, Classify],
    candidate: tuple[str, Classify],
    images: Mapping[str, Array],
    *,
    batch_sizes: Sequence[int] = (1, 2, 7, 64),
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Run both on the same images, and compare their probabilities.

    Args:
        reference, candidate: a name and a function, uint8 (N, H, W, C) -> float32 (N, classes), each.
        images: sets of uint8 images (N, H, W, C) by name. The reference is asked once, at the largest batch size. The
            candidate is compared at that size on every set, and on its first 16 images at all the others.
    """
    reference_name, reference_classify = reference
    candidate_name, candidate_classify = candidate
    comparisons = []
    largest = max(batch_sizes)
    for name, batch in images.items():
        expected = _in_batches(reference_classify, batch, largest)
        for size in batch_sizes:
            chosen = batch if size == largest else batch[:16]
            found = _in_batches(candidate_classify, chosen, size)
            comparisons.append(_compare_arrays(name, size, expected[: len(chosen)], found))
    return ParityReport(reference_name, candidate_name, tolerance, tuple(comparisons))


def synthetic_images(height: int, width: int, channels: int, seed: int = 0) -> dict[str, Array]:
    """Return random and extreme uint8 images (N, height, width, channels) by name."""
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    noise = rng.integers(0, 256, (128, *shape), dtype=np.uint8)
    # Low-frequency noise: what a convolution sees in photographs, unlike white noise.
    coarse = rng.integers(0, 256, (128, -(-height // 4), -(-width // 4), channels), dtype=np.uint8)
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    spot = np.zeros(shape, np.uint8)
    spot[height // 2, width // 2] = 255
    extreme = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), spot, 255 - spot])
    binary = (rng.integers(0, 2, (32, *shape)) * 255).astype(np.uint8)
    return {"noise": noise, "smooth noise": smooth, "black-and-white noise": binary, "extremes": extreme}


def _in_batches(classify: Classify, images: Array, size: int) -> Array:
    parts = [classify(images[start : start + size]) for start in range(0, len(images), size)]
    return np.concatenate(parts).astype(np.float64)


def _compare_arrays(name: str, batch_size: int, expected: Array, found: Array) -> Comparison:
    difference = np.abs(found - expected)
    sizeable = ~(expected < 1e-3)  # and what is not a number, which no comparison passes
    return Comparison(
        images=name,
        batch_size=batch_size,
        count=len(expected),
        max_absolute=float(difference.max()),
        max_relative=float((difference[sizeable] / expected[sizeable]).max(initial=0.0)),
        top1_equal=int((expected.argmax(axis=1) == found.argmax(axis=1)).sum()),
    )
