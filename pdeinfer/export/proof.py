"""Proves the files of a model package equal to the Keras network that they came from."""

import hashlib
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.backend import require_tensorflow
from pdeinfer.checks.fields import compare_fields
from pdeinfer.checks.parity import Classify, compare, in_batches, synthetic_images
from pdeinfer.checks.report import Report
from pdeinfer.checks.variants import as_candidate, compare_variant
from pdeinfer.errors import ExportError, ModelPackageError
from pdeinfer.export.fields_proof import prove_fields
from pdeinfer.export.litert import open_litert
from pdeinfer.export.reference import keras_probabilities, original_name
from pdeinfer.export.saved_model import read_saved_model
from pdeinfer.package.package import (
    FEATURES_NAME,
    FIELDS_FILE,
    INPUT_NAME,
    KERAS_FILE,
    LITERT_FILE,
    MODEL_FILES,
    ONNX_FILE,
    ModelPackage,
)
from pdeinfer.runtime.session import Session, create_session

SAVED_MODEL = "saved_model"
TEST_IMAGES = "test images"
_COMPARED = (KERAS_FILE, FIELDS_FILE, *MODEL_FILES.values())


def prove(classifier: Any, folder: Path, images: Mapping[str, Array], *, saved_model: bool) -> list[Report]:
    """Compare the exported files in `folder` with the network.

    The reference is the Keras network on TensorFlow, on the CPU: GPUs round differently. ONNX Runtime runs with the
    options that `Predictor` uses: once with only standard operators and, where this machine has it, once with the
    fused operator of the PDE layers.

    Args:
        images: sets of images, uint8 (N, height, width, channels), by name; for features and fields, the first 16
            of each.
        saved_model: also compare the SavedModel. This runs it, and a SavedModel is a program that may do anything: pass
            True only for one that was just written.

    Raises:
        ParityError, ModelPackageError: `fields.onnx` lacks fields, or has others.
        MissingDependencyError: there is a `model.tflite`, and LiteRT is not installed.
    """
    answers: dict[bytes, Array] = {}  # every candidate is compared on the same images

    def original(batch: Array) -> Array:
        key = hashlib.sha256(batch.tobytes()).digest()
        if key not in answers:
            answers[key] = keras_probabilities(classifier, batch)
        return answers[key]

    candidates = _onnx_candidates(folder)
    if saved_model:
        candidates.append((SAVED_MODEL, read_saved_model(folder / SAVED_MODEL)))
    if (folder / LITERT_FILE).is_file():
        candidates.append(open_litert(LITERT_FILE, (folder / LITERT_FILE).read_bytes()))
    name = original_name()
    reports = [compare((name, original), candidate, images) for candidate in candidates]
    some_images = np.concatenate([batch[:16] for batch in images.values()])
    session = create_session((folder / ONNX_FILE).read_bytes(), "cpu")
    if FEATURES_NAME in session.outputs:
        reports.append(_prove_features(name, classifier, session, some_images))
    if (folder / FIELDS_FILE).is_file():
        reports.append(prove_fields(name, classifier, (folder / FIELDS_FILE).read_bytes(), some_images))
    return reports


def check_finite(classifier: Any, images: Mapping[str, Array]) -> None:
    """Raise ExportError unless the network's own probabilities of these images, as in `prove`, are finite."""
    for name, batch in images.items():
        probabilities = in_batches(partial(keras_probabilities, classifier), batch, 64)
        if not np.isfinite(probabilities).all():
            raise ExportError(
                f"the network's own probabilities are not finite on {name}: its training diverged, or its dt is too "
                "large; train it again with a lower --lr or dt"
            )


def _prove_features(name: str, classifier: Any, session: Session, images: Array) -> Report:
    """Compare the features of `model.onnx` with the network's."""
    import keras

    until_features = keras.Model(classifier.input, classifier.get_layer("logits").input)

    def original(batch: Array) -> dict[str, Array]:
        with keras.device("cpu:0"):
            return {FEATURES_NAME: np.asarray(until_features(batch, training=False))}

    def exported(batch: Array) -> dict[str, Array]:
        return {FEATURES_NAME: session.run(FEATURES_NAME, {INPUT_NAME: batch})}

    candidate = f"features of {ONNX_FILE} on ONNX Runtime {session.version}"
    return compare_fields((name, original), (candidate, exported), images)


def verify_package(package: ModelPackage) -> list[Report]:
    """Prove the ONNX files and the card of an existing package again, against its `model.keras`.

    Reduced-precision files are compared with `model.onnx`. A SavedModel is not loaded: unlike the other files, it is a
    program. LiteRT files are left to `verification`, which compares them with the reference.

    Raises:
        ModelPackageError: the package has no `model.keras`, or its card contradicts it.
        ExportError: its `model.keras` is damaged or holds another network.
        MissingDependencyError: TensorFlow is not installed.
        BackendError: Keras runs on another backend.
    """
    if KERAS_FILE not in package.card.files:
        raise ModelPackageError(f"{package.path} has no {KERAS_FILE} to compare with")
    require_tensorflow()
    from pdeinfer.nn import count_macs, count_parameters  # imports Keras
    from pdeinfer.nn.loading import load_classifier, read_preset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package.copy_files(folder, *(name for name in _COMPARED if name in package.card.files))
        described = read_preset(folder / KERAS_FILE)
        if package.card.preset != described:  # before Keras builds the network
            raise _contradiction("preset", described, package.card.preset)
        classifier = load_classifier(folder / KERAS_FILE)
        for name, expected, found in (
            ("parameters", count_parameters(classifier), package.card.parameters),
            ("macs", count_macs(classifier), package.card.macs),
        ):
            if found != expected:
                raise _contradiction(name, expected, found)
        images = synthetic_images(*classifier.input_shape[1:])
        variants = [compare_variant(folder, precision, images) for precision in package.precisions[1:]]
        return [*prove(classifier, folder, images, saved_model=False), *variants]


def _contradiction(name: str, expected: object, found: object) -> ModelPackageError:
    return ModelPackageError(f"{name} in the card: expected {expected}, as {KERAS_FILE} has, got {found}")


def _onnx_candidates(folder: Path) -> list[tuple[str, Classify]]:
    """Return the ways in which this machine runs the package's `model.onnx` on a CPU."""
    model = (folder / ONNX_FILE).read_bytes()
    candidates = [as_candidate(ONNX_FILE, create_session(model, "cpu", fused=False))]
    session = create_session(model, "cpu")
    if session.pde_layers == "fused":
        name, classify = as_candidate(ONNX_FILE, session)
        candidates.append((f"{name} with the fused operator", classify))
    return candidates
