"""The report of a comparison: how far a candidate's values are from a reference's, and whether that passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from pdeinfer.text import round_up

Subject: TypeAlias = Literal["probabilities", "fields"]

# By subject: the name of a row's key in JSON, and the difference that the tolerance limits.
_ROW_KEYS: dict[Subject, str] = {"probabilities": "images", "fields": "field"}
_LIMITED: dict[Subject, Literal["max_absolute", "max_relative"]] = {
    "probabilities": "max_absolute",
    "fields": "max_relative",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of a report.

    Attributes:
        name: the set of images or the field that was compared.
        count: images compared.
        max_absolute: the largest |candidate - reference|.
        max_relative: the largest relative difference, as the comparing function defines it.
        batch_size: images per run; None where all ran at once.
        top1_equal: images that both give the same most probable class; None for fields.
        largest: the largest |reference|; None for probabilities.
    """

    name: str
    count: int
    max_absolute: float
    max_relative: float
    batch_size: int | None = None
    top1_equal: int | None = None
    largest: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The comparisons of one candidate with one reference.

    Attributes:
        subject: "probabilities", a row per set of images and batch size; or "fields", a row per field.
        tolerance: the largest difference that passes, absolute for probabilities and relative for fields; None where
            nothing is promised, as for reduced precision.
    """

    subject: Subject
    reference: str
    candidate: str
    tolerance: float | None
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every difference is within the tolerance and every most probable class is the same.

        Without a tolerance, whether every difference is finite. A NaN never passes, nor does a report without rows.
        """
        if not self.comparisons or not np.isfinite(self.max_difference):
            return False
        if self.tolerance is None:
            return True
        return self.max_difference <= self.tolerance and all(
            row.top1_equal in (None, row.count) for row in self.comparisons
        )

    @property
    def max_difference(self) -> float:
        """The largest difference of all rows, of the kind that the tolerance limits; NaN if any is NaN."""
        return float(np.max([getattr(row, _LIMITED[self.subject]) for row in self.comparisons]))

    @property
    def summary(self) -> str:
        """One line: how far the candidate is from the reference."""
        relative = " (relative)" if self.subject == "fields" else ""
        text = f"{self.candidate} within {round_up(self.max_difference):.1e}{relative} of {self.reference}"
        same, count = (sum(values) for values in zip(*map(_top1, self.comparisons), strict=True))
        return text if same == count else f"{text}, {same:,} of {count:,} labels the same"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, as a card's `parity` holds it; a NaN or infinity becomes None."""
        return {
            "passed": self.passed,
            "reference": self.reference,
            "candidate": self.candidate,
            "tolerance": self.tolerance,
            "comparisons": [self._row_to_dict(row) for row in self.comparisons],
        }

    def __str__(self) -> str:
        """Return a table with a line per set of images or field, all batch sizes of a set taken together."""
        tolerance = "" if self.tolerance is None else f", tolerance {self.tolerance:g}"
        name = _ROW_KEYS[self.subject]
        last = "top-1 equal" if self.subject == "probabilities" else "largest"
        sizes = "batch sizes" if any(entry.batch_size is not None for entry in self.comparisons) else ""
        header = (sizes, "compared", "max |diff|", "max rel.")
        row = "  {:<22}{:<14}{:>9}{:>12}{:>12}{:>15}"
        lines = [
            f"{self.candidate} against {self.reference}{tolerance}",
            row.format(name, *header, last),
        ]
        lines += [
            row.format(name, *_cells([entry for entry in self.comparisons if entry.name == name]))
            for name in dict.fromkeys(entry.name for entry in self.comparisons)
        ]
        if self.tolerance is not None:
            lines.append(f"  {'equal' if self.passed else 'NOT EQUAL'}")
        return "\n".join(lines)

    def _row_to_dict(self, row: Comparison) -> dict[str, Any]:
        values = {
            "batch_size": row.batch_size,
            "count": row.count,
            "max_absolute": _finite(row.max_absolute),
            "max_relative": _finite(row.max_relative),
        }
        if self.subject == "probabilities":
            return {_ROW_KEYS[self.subject]: row.name, **values, "top1_equal": row.top1_equal}
        del values["batch_size"]
        return {_ROW_KEYS[self.subject]: row.name, **values, "largest": _finite(row.largest)}


def _cells(rows: Sequence[Comparison]) -> list[str]:
    """Return the cells of one line of the table, after its name."""
    sizes = ", ".join(str(row.batch_size) for row in rows if row.batch_size is not None)
    absolute, relative = np.max([(row.max_absolute, row.max_relative) for row in rows], axis=0)
    count = sum(row.count for row in rows)
    same = f"{sum(_top1(row)[0] for row in rows):,}/{count:,}"
    largest = rows[0].largest
    return [
        sizes,
        f"{count:,}",
        f"{absolute:.1e}",
        f"{relative:.1e}",
        same if largest is None else f"{largest:.3g}",
    ]


def _top1(row: Comparison) -> tuple[int, int]:
    """Return how many most probable classes are the same, and of how many images."""
    return row.count if row.top1_equal is None else row.top1_equal, row.count


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
