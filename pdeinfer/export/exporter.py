"""Turns a trained network into a model package, and proves the package equal to the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.checks.parity import in_batches, synthetic_images
from pdeinfer.checks.report import Report
from pdeinfer.checks.variants import compare_variant, open_model
from pdeinfer.datasets import load_training_images, load_validation_split
from pdeinfer.errors import ParityError
from pdeinfer.export.model_readme import write_descriptions
from pdeinfer.export.onnx_file import OPSET, write
from pdeinfer.export.original import Original, load_original
from pdeinfer.export.proof import SAVED_MODEL, TEST_IMAGES, prove
from pdeinfer.export.quantization import to_int8
from pdeinfer.export.reference import write_reference
from pdeinfer.export.rewrite.fields import pde_layers
from pdeinfer.export.rewrite.graph import convert_classifier, convert_stages, without_functions
from pdeinfer.export.rewrite.traced import trace
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.export.saved_model import write_saved_model
from pdeinfer.export.temperature import scale_probabilities
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import FIELDS_FILE, KERAS_FILE, MODEL_FILES, Precision, new_package, write_card


def export_package(
    source: str | Path,
    output: str | Path,
    *,
    inline: bool = False,
    saved_model: bool = False,
    calibrate: Path | None = None,
    temperature: bool = False,
    force: bool = False,
) -> list[Report]:
    """Write the model package of a trained network, prove it equal to the network, and return the proof.

    An int8 file cannot match exactly. The reports say how far it is from `model.onnx`, and the card how well it
    classifies the data set's test images, if they are available.

    Args:
        source: the folder of a training, or a `.keras` file.
        output: the package's folder.
        inline: write ONNX files without functions, for tools that cannot read functions; the operators of the PDE
            layers are then part of the graph.
        saved_model: add a TensorFlow SavedModel.
        calibrate: add `model.int8.onnx`, for CPUs, calibrated on the images in this folder (see
            `pdeinfer.datasets.load_training_images`).
        temperature: divide the logits by the temperature that fits the validation images of the training best (see
            `pdeinfer.export.temperature`). Every file has it, `model.keras` too, and the proof holds for that network.
        force: replace the package at `output`.

    Raises:
        ExportError: `source` is not a network of this package, or cannot be converted.
        ModelPackageError: `output` exists and `force` is False, or it cannot be written.
        DatasetError, ImageError: `calibrate` has no usable training images; or, with `temperature`, the validation
            images are not where they were, or all classified correctly.
        ParityError: an exported file differs from the network; the message is the report. Nothing is left behind.
        MissingDependencyError: TensorFlow or tf2onnx is not installed.
        BackendError: Keras runs on another backend than TensorFlow.
    """
    with new_package(output, force=force) as folder:
        original = load_original(Path(source))
        calibration = None
        if temperature:
            validation = load_validation_split(original.record, original.classifier.preset, original.data_dir)
            calibration = scale_probabilities(original.classifier, validation, original.test)
        images = synthetic_images(*original.classifier.input_shape[1:])
        if original.test is not None:
            images[TEST_IMAGES] = original.test.images
        precisions = _write_models(original, folder, calibrate, inline=inline)
        if saved_model:
            write_saved_model(original.classifier, trace(original.classifier), folder / SAVED_MODEL)
        reports = prove(original.classifier, folder, images, saved_model=saved_model)
        variants = {precision: compare_variant(folder, precision, images) for precision in precisions}
        every_report = [*reports, *variants.values()]
        if not all(report.passed for report in every_report):
            raise ParityError("the export differs from the network:\n" + "\n".join(map(str, every_report)))
        write_reference(original.classifier, folder)
        card = _card(original, folder, reports, variants, calibration)
        write_descriptions(card, folder)
        write_card(folder, card)
    return every_report


def _write_models(original: Original, folder: Path, calibrate: Path | None, *, inline: bool) -> list[Precision]:
    """Write `model.keras` and the ONNX files; return the precisions other than float32."""
    classifier = original.classifier
    preset = classifier.preset
    calibration = None if calibrate is None else load_training_images(original.record, preset, calibrate)
    classifier.save(folder / KERAS_FILE)

    def write_onnx(name: str, model: Any, rules: Any) -> None:
        write(without_functions(model) if inline else model, preset, folder / name, rules)

    model = convert_classifier(classifier, for_onnx_runtime=not inline)
    write_onnx(MODEL_FILES["float32"], model, broken_rules)
    if pde_layers(classifier):
        write_onnx(FIELDS_FILE, convert_stages(classifier), broken_fields_rules)
    if calibration is None:
        return []
    write_onnx(MODEL_FILES["int8"], to_int8(model, calibration), broken_rules)
    return ["int8"]


def _card(
    original: Original,
    folder: Path,
    reports: Sequence[Report],
    variants: dict[Precision, Report],
    calibration: dict[str, Any] | None,
) -> ModelCard:
    from pdeinfer.nn import count_macs, count_parameters  # imports Keras

    classifier, record = original.classifier, original.record
    training, metrics = ({}, {}) if record is None else record.to_card()
    return ModelCard(
        preset=classifier.preset,
        parameters=count_parameters(classifier),
        macs=count_macs(classifier),
        opset=OPSET,
        training=training,
        metrics=metrics if calibration is None else {**metrics, "calibration": calibration},
        parity={report.candidate: report.to_dict() for report in reports},
        variants={
            precision: {"parity": report.to_dict(), **_accuracy(original, folder, precision)}
            for precision, report in variants.items()
        },
    )


def _accuracy(original: Original, folder: Path, precision: Precision) -> dict[str, Any]:
    """Return the card's entries on how well a file classifies the test images; empty if these are not available."""
    if original.test is None:
        return {}
    _, classify = open_model(folder, precision)
    predicted = in_batches(classify, original.test.images, 64).argmax(axis=1)
    return {
        "test_accuracy": float(np.mean(predicted == original.test.labels)),
        "test_images": len(original.test),
    }
