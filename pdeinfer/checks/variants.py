"""Measures the files of a model package that are of less precision against `model.onnx`: how far apart they are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pdeinfer.checks.parity import Array, Comparison, compare
from pdeinfer.package.package import MODEL_FILES, ModelPackage, Precision
from pdeinfer.predictor import Predictor

# The largest absolute difference of two probabilities that a file may have; None where nothing is promised. float16 has
# 11 bits: measured on `cifar10-global` and the test images of CIFAR-10, at most 0.012.
HALF_TOLERANCE = 0.05
TOLERANCES: dict[Precision, float | None] = {"half": HALF_TOLERANCE, "int8": None}


@dataclass(frozen=True, slots=True)
class VariantReport:
    """How far a file's probabilities are from those of `model.onnx`, on a CPU: close or not, they are not equal.

    Attributes:
        precision: "half" or "int8". reference, candidate: what was compared.
        tolerance: the largest difference of two probabilities that passes, or None where any does.
        comparisons: a row for each set of images.
    """

    precision: Precision
    reference: str
    candidate: str
    tolerance: float | None
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether no difference is above the tolerance. A NaN is."""
        return np.isfinite(self.max_absolute) and (self.tolerance is None or self.max_absolute <= self.tolerance)

    @property
    def max_absolute(self) -> float:
        """The largest absolute difference of two probabilities."""
        return float(np.max([row.max_absolute for row in self.comparisons]))  # NaN if any is

    @property
    def summary(self) -> str:
        """One line: how far the candidate is from the reference."""
        same = sum(row.top1_equal for row in self.comparisons) / sum(row.count for row in self.comparisons)
        return f"{self.candidate} within {self.max_absolute:.1e} of {self.reference}, labels {same:.1%} the same"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        """Return a table with a line for each set of images."""
        tolerance = "" if self.tolerance is None else f", tolerance {self.tolerance:g}"
        lines = [
            f"{self.candidate} against {self.reference}{tolerance}",
            f"  {'images':<22}{'compared':>9}{'max |diff|':>12}{'same label':>15}",
        ]
        for row in self.comparisons:
            top1 = f"{row.top1_equal:,}/{row.count:,}"
            lines.append(f"  {row.images:<22}{row.count:>9,}{row.max_absolute:>12.1e}{top1:>15}")
        return "\n".join([*lines, f"  {'close' if self.passed else 'NOT CLOSE'}"] if tolerance else lines)


def compare_variant(package: ModelPackage, precision: Precision, images: Mapping[str, Array]) -> VariantReport:
    """Classify sets of images, uint8 (N, height, width, channels), by name, with `model.onnx` and another file.

    Raises:
        ModelPackageError: a file is missing or damaged.
    """
    with (
        Predictor(package, device="cpu") as reference,
        Predictor(package, precision=precision, device="cpu") as variant,
    ):
        version = f"on ONNX Runtime {variant.info().versions['onnxruntime']}"
        report = compare(
            (f"{MODEL_FILES['float32']} {version}", reference.predict_proba),
            (f"{MODEL_FILES[precision]} {version}", variant.predict_proba),
            images,
            batch_sizes=(64,),
        )
    return VariantReport(precision, report.reference, report.candidate, TOLERANCES[precision], report.comparisons)
