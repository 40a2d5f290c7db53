"""Compare what two implementations compute inside the PDE layers of a network, and report how far apart they are."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from pdeinfer.checks.parity import Array
from pdeinfer.errors import ParityError

ComputeFields: TypeAlias = Callable[[Array], Mapping[str, Array]]  # uint8 (N, H, W, C) -> arrays (N, ...) by name

# The largest difference of two values of a field that float32 arithmetic in another order may cause, relative to the
# field's largest value, or to 1 where that is less: fields come from a batch normalisation, whose results are of this
# size, and a relu, which may leave little of them. Measured on the bundled models: see the report in each one's card.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class FieldComparison:
    """How far a candidate's values of one field are from the reference's.

    Attributes:
        field: its name. count: images compared.
        largest: the largest |reference|. max_absolute: the largest |candidate - reference|.
        max_relative: `max_absolute / max(largest, 1)`.
    """

    field: str
    count: int
    largest: float
    max_absolute: float
    max_relative: float


@dataclass(frozen=True, slots=True)
class FieldsReport:
    """The comparisons of a candidate's fields with the reference's, and whether it passed.

    It passes where no value of any field has a `max_relative` above `tolerance`.
    """

    reference: str
    candidate: str
    tolerance: float
    comparisons: tuple[FieldComparison, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate equals the reference within the tolerance. A NaN does not."""
        return bool(self.comparisons) and all(row.max_relative <= self.tolerance for row in self.comparisons)

    @property
    def summary(self) -> str:
        """One line: how far the candidate is from the reference."""
        largest = np.max([row.max_relative for row in self.comparisons])  # NaN if any is
        return f"{self.candidate} within {largest:.1e} (relative) of {self.reference}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; what is no number becomes None."""
        values = asdict(self)
        for comparison in values["comparisons"]:
            for name in ("largest", "max_absolute", "max_relative"):
                if not np.isfinite(comparison[name]):
                    comparison[name] = None
        return {"passed": self.passed, **values}

    def __str__(self) -> str:
        """Return a table with a line for each field."""
        row = "  {:<22}{:>23}{:>12}{:>12}{:>15}"
        lines = [
            f"{self.candidate} against {self.reference}, tolerance {self.tolerance:g} of a field's largest value or 1",
            row.format("field", "compared", "max |diff|", "max rel.", "largest"),
        ]
        for entry in self.comparisons:
            numbers = (f"{entry.max_absolute:.1e}", f"{entry.max_relative:.1e}", f"{entry.largest:.3g}")
            lines.append(row.format(entry.field, f"{entry.count:,}", *numbers))
        return "\n".join([*lines, f"  {'equal' if self.passed else 'NOT EQUAL'}"])


def compare_fields(
    reference: tuple[str, ComputeFields], candidate: tuple[str, ComputeFields], images: Array
) -> FieldsReport:
    """Run both on the same images, the candidate on the first one alone as well, and compare every array.

    Args:
        reference, candidate: a name and a function, uint8 (N, H, W, C) -> arrays (N, ...) by name, each.
        images: uint8 (N, H, W, C).

    Raises:
        ParityError: the candidate has other arrays, or one has another shape.
    """
    reference_name, reference_fields = reference
    candidate_name, candidate_fields = candidate
    expected = reference_fields(images)
    together, alone = candidate_fields(images), candidate_fields(images[:1])
    shapes, found = ({name: array.shape for name, array in arrays.items()} for arrays in (expected, together))
    if found != shapes:
        raise ParityError(f"{candidate_name}: expected the fields {shapes}, got {found}")
    comparisons = tuple(_compare_field(name, expected[name], together[name], alone[name]) for name in expected)
    return FieldsReport(reference_name, candidate_name, TOLERANCE, comparisons)


def _compare_field(name: str, expected: Array, together: Array, alone: Array) -> FieldComparison:
    expected = expected.astype(np.float64)
    difference = float(np.max([np.abs(together - expected).max(), np.abs(alone - expected[:1]).max()]))  # NaN if any is
    largest = float(np.abs(expected).max())
    return FieldComparison(name, len(expected), largest, difference, difference / max(largest, 1.0))
