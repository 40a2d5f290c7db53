"""Proves the files of a model package equal to the Keras network they came from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.fields_report import FieldsReport, compare_fields
from pdeinfer.checks.parity import Array, Classify, ParityReport, compare, synthetic_images
from pdeinfer.checks.variants import VariantReport, compare_variant
from pdeinfer.errors import ModelPackageError
from pdeinfer.export.fields import exported_fields, original_fields
from pdeinfer.export.original import load_classifier
from pdeinfer.export.saved_model import read_saved_model
from pdeinfer.package.package import FIELDS_FILE, KERAS_FILE, ONNX_FILE, ModelPackage
from pdeinfer.runtime.session import Session, create_session

SAVED_MODEL = "saved_model"
TEST_IMAGES = "test images"

Report: TypeAlias = ParityReport | FieldsReport | VariantReport


def prove(classifier: Any, folder: Path, images: Mapping[str, Array], *, saved_model: bool) -> list[Report]:
    """Compare the exported files in `folder` with the network, and report.

    The reference is the Keras network on TensorFlow, on the CPU: a GPU rounds otherwise. ONNX Runtime runs with the
    options that `Predictor` uses, with standard operators alone and, where this machine has it, with the fused operator
    of the PDE layers.

    Args:
        images: sets of images, uint8 (N, height, width, channels), by name; for the fields, the first 16 of each.
        saved_model: compare the SavedModel too. It is run for that, and it is a program that may do anything: only one
            that was written here.

    Raises:
        ParityError, ModelPackageError: `fields.onnx` lacks fields, or has others.
    """
    import tensorflow as tf

    answers: dict[bytes, Array] = {}  # every candidate is asked the same

    def original(batch: Array) -> Array:
        key = hashlib.sha256(batch.tobytes()).digest()
        if key not in answers:
            with tf.device("CPU:0"):
                answers[key] = np.asarray(tf.nn.softmax(classifier(batch, training=False)))
        return answers[key]

    candidates = _onnx_candidates(folder)
    if saved_model:
        candidates.append((SAVED_MODEL, read_saved_model(folder / SAVED_MODEL)))
    name = f"Keras on TensorFlow {tf.__version__}"
    reports: list[Report] = [compare((name, original), candidate, images) for candidate in candidates]
    if (folder / FIELDS_FILE).is_file():
        some_images = np.concatenate([batch[:16] for batch in images.values()])
        reports.append(prove_fields(name, classifier, (folder / FIELDS_FILE).read_bytes(), some_images))
    return reports


def prove_fields(name: str, classifier: Any, fields_file: bytes, images: Array) -> FieldsReport:
    """Compare a `fields.onnx` with the network, which the report calls `name`, on images (N, H, W, C), and report.

    Raises:
        ParityError, ModelPackageError: the file lacks fields, or has others.
    """
    session = create_session(fields_file, "cpu", fused=False)  # as `inspect` does
    return compare_fields(
        (name, lambda batch: original_fields(classifier, batch)),
        (
            f"{FIELDS_FILE} on ONNX Runtime {session.version}",
            lambda batch: exported_fields(classifier, session.run_all({"image": batch})),
        ),
        images,
    )


def verify_package(package: ModelPackage) -> list[Report]:
    """Prove an existing package again, against the `model.keras` in it: its ONNX files, and its card.

    Its files of less precision are compared with `model.onnx`.

    A SavedModel in it is not loaded: unlike the other files, it is a program.

    Raises:
        ModelPackageError: it has no `model.keras`, or its card says otherwise.
        MissingDependencyError: TensorFlow is not installed.
        BackendError: Keras runs on another backend.
    """
    if KERAS_FILE not in package.card.files:
        raise ModelPackageError(f"{package.path} has no {KERAS_FILE} to compare with")
    require_tensorflow()
    classifier = load_classifier(package.path / KERAS_FILE)
    from pdeinfer.nn import count_macs, count_parameters  # Keras is there from here on

    for name, expected, found in (
        ("preset", classifier.preset, package.card.preset),
        ("parameters", count_parameters(classifier), package.card.parameters),
        ("macs", count_macs(classifier), package.card.macs),
    ):
        if found != expected:
            raise ModelPackageError(
                f"the card's {name} is not that of {KERAS_FILE}: {expected} expected, {found} found"
            )
    images = synthetic_images(*classifier.input_shape[1:])
    variants = [compare_variant(package, precision, images) for precision in package.precisions[1:]]
    return [*prove(classifier, package.path, images, saved_model=False), *variants]


def _onnx_candidates(folder: Path) -> list[tuple[str, Classify]]:
    """Return the ways in which this machine runs the package's ONNX file on a CPU."""
    model = (folder / ONNX_FILE).read_bytes()
    candidates = [_candidate("", create_session(model, "cpu", fused=False))]
    session = create_session(model, "cpu")
    if session.pde_layers == "fused":
        candidates.append(_candidate(" with the fused operator", session))
    return candidates


def _candidate(operators: str, session: Session) -> tuple[str, Classify]:
    name = f"{ONNX_FILE} on ONNX Runtime {session.version}{operators}"
    return name, lambda images: session.run("probabilities", {"image": images})
