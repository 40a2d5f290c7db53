"""Compares what two implementations compute inside the PDE layers of one network."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.report import Comparison, Report
from pdeinfer.errors import ParityError

ComputeFields: TypeAlias = Callable[[Array], Mapping[str, Array]]  # uint8 (N, H, W, C) -> arrays (N, ...) by name

# The largest relative difference of two values of a field that float32 arithmetic in another order may cause. The
# measured differences of each model are in its card.
TOLERANCE = 1e-5


def compare_fields(reference: tuple[str, ComputeFields], candidate: tuple[str, ComputeFields], images: Array) -> Report:
    """Run both implementations on the same images, the candidate also on the first image by itself; compare all fields.

    A row's `max_relative` is relative to the field's largest |reference|, or to 1 where that is smaller. A field is the
    relu of a batch normalisation: its values have the size of 1, though the relu may leave only small ones.

    Args:
        reference, candidate: a name and a function, uint8 (N, H, W, C) -> arrays (N, ...) by name, each.
        images: uint8 (N, H, W, C).

    Raises:
        ParityError: the two have different fields, or a field has different shapes.
    """
    reference_name, reference_fields = reference
    candidate_name, candidate_fields = candidate
    expected = reference_fields(images)
    together, alone = candidate_fields(images), candidate_fields(images[:1])
    shapes, found = ({name: array.shape for name, array in arrays.items()} for arrays in (expected, together))
    if found != shapes:
        raise ParityError(f"{candidate_name}: expected the fields {shapes}, got {found}")
    comparisons = tuple(_compare_field(name, expected[name], together[name], alone[name]) for name in expected)
    return Report("fields", reference_name, candidate_name, TOLERANCE, comparisons)


def _compare_field(name: str, expected: Array, together: Array, alone: Array) -> Comparison:
    expected = expected.astype(np.float64)
    difference = float(np.max([np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()]))  # NaN if any is
    largest = float(np.abs(expected).max())
    return Comparison(name, len(expected), difference, difference / max(largest, 1.0), largest=largest)
