"""Measures how far a package's reduced-precision files are from its `model.onnx`."""

from collections.abc import Mapping
from pathlib import Path

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import Classify, compare
from pdeinfer.checks.report import Report
from pdeinfer.package.package import INPUT_NAME, MODEL_FILES, OUTPUT_NAME, Precision
from pdeinfer.runtime.session import Session, create_session


def compare_variant(folder: Path, precision: Precision, images: Mapping[str, Array]) -> Report:
    """Classify images with a reduced-precision file and with `model.onnx`, on the CPU, and compare the probabilities.

    Args:
        folder: the package's.
        images: sets of uint8 images (N, height, width, channels) by name.

    Raises:
        ModelPackageError: ONNX Runtime cannot run a file.
    """
    reference, candidate = (open_model(folder, each) for each in ("float32", precision))
    return compare_reduced(reference, candidate, images)


def compare_reduced(
    reference: tuple[str, Classify], candidate: tuple[str, Classify], images: Mapping[str, Array]
) -> Report:
    """Compare a candidate of reduced precision with a reference, as `parity.compare` does.

    It cannot match exactly: the report has no tolerance, and passes if every difference is finite.
    """
    return compare(reference, candidate, images, batch_sizes=(64,), tolerance=None)


def open_model(folder: Path, precision: Precision) -> tuple[str, Classify]:
    """Load a package's ONNX file on the CPU; return a name for reports, and its function."""
    file = MODEL_FILES[precision]
    return as_candidate(file, create_session((folder / file).read_bytes(), "cpu"))


def as_candidate(file: str, session: Session) -> tuple[str, Classify]:
    """Return a name for reports, and the function, of a session that runs the file of a network."""
    return f"{file} on ONNX Runtime {session.version}", lambda images: session.run(OUTPUT_NAME, {INPUT_NAME: images})
