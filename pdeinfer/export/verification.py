"""Checks a model package: checksums, predictions, reference, graph rules, onnx, and parity with its Keras original."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from pdeinfer.checks.parity import TOLERANCE
from pdeinfer.checks.reference import compare_with_reference, read_reference
from pdeinfer.checks.report import Report
from pdeinfer.errors import BackendError, ExportError, MissingDependencyError, ModelPackageError, ParityError
from pdeinfer.export.litert import open_litert
from pdeinfer.export.onnx_file import parse, require_onnx
from pdeinfer.export.proof import verify_package
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.graph.rules import check_graph
from pdeinfer.graph.wire import read_graph
from pdeinfer.package.package import (
    FIELDS_FILE,
    LITERT_FILE,
    LITERT_INT8_FILE,
    MODEL_FILES,
    REFERENCE_FILE,
    ModelPackage,
)
from pdeinfer.predictor import Predictor
from pdeinfer.text import counted


class _NoReferenceError(Exception):
    """The package is of an earlier version, which wrote none."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check, and what it found."""

    name: str
    outcome: Literal["ok", "skipped", "FAILED"]
    detail: str


REFERENCE = "reference"


def verify(package: ModelPackage, device: str = "cpu") -> Iterator[Check]:
    """Check a package and yield the outcome of each check; stop after the first failure, and load nothing more.

    A check is skipped if what it needs is missing: `reference.npz` for the reference, onnx for its checker, Keras on
    TensorFlow for parity, LiteRT for LiteRT files. The last is made only if the package has such files.

    Args:
        device: on which the network predicts and is compared with the reference. Parity is checked on the CPU.

    Raises:
        DeviceError: the device cannot be used.
    """
    checks: list[tuple[str, Callable[[ModelPackage], str]]] = [
        ("checksums", _check_files),
        ("prediction", partial(_check_prediction, device=device)),
        (REFERENCE, partial(_check_reference, device=device)),
        ("graph rules", _check_graph_rules),
        ("onnx checker", _check_with_onnx),
        ("parity", _check_parity),
    ]
    if LITERT_FILE in package.card.files:
        checks.append(("litert", _check_litert))
    for name, check in checks:
        try:
            yield Check(name, "ok", check(package))
        except (_NoReferenceError, MissingDependencyError, BackendError) as error:
            yield Check(name, "skipped", str(error))
        except (ModelPackageError, ExportError, ParityError) as error:
            yield Check(name, "FAILED", str(error))
            return


def _check_files(package: ModelPackage) -> str:
    package.verify_checksums()
    return counted(len(package.card.files), "file")


def _check_prediction(package: ModelPackage, device: str) -> str:
    spec = package.card.preset.input
    for precision in package.precisions:
        with Predictor(package, precision=precision, device=device) as predictor:
            probabilities = predictor.predict_proba(np.zeros((1, spec.height, spec.width, spec.channels), np.uint8))
            if not np.isfinite(probabilities).all():
                raise ModelPackageError(f"{MODEL_FILES[precision]}: the network computes NaN or infinity")
            info = predictor.info()
    return f"ONNX Runtime {info.versions['onnxruntime']} on {info.device}"


def _check_reference(package: ModelPackage, device: str) -> str:
    _require_reference(package)
    return _passed([compare_with_reference(package, device)])


def _require_reference(package: ModelPackage) -> None:
    if REFERENCE_FILE not in package.card.files:
        raise _NoReferenceError(f"the package has no {REFERENCE_FILE}: export the model again to add it")


def _check_graph_rules(package: ModelPackage) -> str:
    """Check what is checked whenever the files are loaded, and the card's opset; onnx is not needed."""
    sizes = []
    for name in _onnx_files(package):
        content = package.read_network(name)
        try:
            check_graph(content)
        except ModelPackageError as error:
            raise ModelPackageError(f"{name}: {error}") from error
        graph, opset = read_graph(content), package.card.opset
        if ("", opset) not in graph.versions:
            found = dict(graph.versions).get("")
            raise ModelPackageError(f"{name}: opset: expected {opset}, as the card says, got {found}")
        sizes.append(f"{len(graph.nodes)} nodes in {name}")
    return ", ".join(sizes)


def _check_with_onnx(package: ModelPackage) -> str:
    """Check the files with `onnx.checker`, and that their inputs, outputs and metadata are those of a package."""
    require_onnx("checking the ONNX files")
    import onnx

    for name in _onnx_files(package):
        broken_rules_of = broken_fields_rules if name == FIELDS_FILE else broken_rules
        broken = broken_rules_of(parse(package.read_file(name), name), package.card.preset)
        if broken:
            raise ModelPackageError(f"{name}: {'; '.join(broken)}")
    return f"onnx {onnx.__version__}"


def _onnx_files(package: ModelPackage) -> list[str]:
    return [name for name in (*MODEL_FILES.values(), FIELDS_FILE) if name in package.card.files]


def _check_litert(package: ModelPackage) -> str:
    """Compare LiteRT files with the reference."""
    files = {LITERT_FILE: TOLERANCE, LITERT_INT8_FILE: None}
    candidates = {name: open_litert(name, package.read_file(name)) for name in files if name in package.card.files}
    _require_reference(package)
    reference = read_reference(package)
    return _passed([reference.compare(candidate, files[name]) for name, candidate in candidates.items()])


def _check_parity(package: ModelPackage) -> str:
    return _passed(verify_package(package))


def _passed(reports: Sequence[Report]) -> str:
    failed = [report for report in reports if not report.passed]
    if failed:
        tolerances = ["" if report.tolerance is None else f" (tolerance {report.tolerance:g})" for report in failed]
        raise ParityError("; ".join(map("{0.summary}{1}".format, failed, tolerances)))
    return "; ".join(report.summary for report in reports)
