"""Turns a trained network into a model package, and proves it equal to the original."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.checks.parity import synthetic_images
from pdeinfer.checks.variants import VariantReport, compare_variant
from pdeinfer.datasets import load_training_images
from pdeinfer.errors import ParityError
from pdeinfer.export.fields import pde_layers
from pdeinfer.export.model_readme import README_FILE, model_readme
from pdeinfer.export.onnx_file import OPSET, write
from pdeinfer.export.original import Original, load_original
from pdeinfer.export.precisions import to_half, to_int8
from pdeinfer.export.proof import SAVED_MODEL, TEST_IMAGES, Report, prove
from pdeinfer.export.rewrite.graph import convert_classifier, convert_fields, without_functions
from pdeinfer.export.rewrite.traced import trace
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.export.saved_model import write_saved_model
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import (
    FIELDS_FILE,
    KERAS_FILE,
    MODEL_FILES,
    ModelPackage,
    Precision,
    new_package,
    write_card,
)
from pdeinfer.predictor import Predictor


def export_package(
    source: str | Path,
    output: str | Path,
    *,
    inline: bool = False,
    saved_model: bool = False,
    calibrate: Path | None = None,
    half: bool = False,
    force: bool = False,
) -> list[Report]:
    """Write the model package of a trained network, prove it equal to the network, and return the proof.

    Files of less precision are not equal to it: how far they are from `model.onnx` is in the reports, and how well they
    classify the data set's test images, where these are at hand, in the package's card.

    Args:
        source: the folder of a training, or a `.keras` file.
        output: the package's folder.
        inline: write the ONNX files without functions, for tools that do not read them: the operators of a PDE layer
            stand in the graph itself.
        saved_model: add a SavedModel to the ONNX file, which every package has.
        calibrate: add `model.int8.onnx`, for CPUs, its ranges those of the images in this folder (see
            `pdeinfer.datasets.load_training_images`).
        half: add `model.half.onnx`, for GPUs.
        force: replace the package that is at `output`.

    Raises:
        ExportError: `source` is not a network of this package, or cannot be converted.
        ModelPackageError: `output` exists without `force`, or cannot be written.
        DatasetError, ImageError: `calibrate` has no training images.
        ParityError: an exported file differs from the network; its message is the report. Nothing is left then.
        MissingDependencyError: TensorFlow or tf2onnx is not installed.
        BackendError: Keras runs on another backend than TensorFlow.
    """
    with new_package(output, force=force) as folder:
        original = load_original(Path(source))
        from pdeinfer.nn import count_macs, count_parameters  # Keras is there from here on

        classifier = original.classifier
        classifier.save(folder / KERAS_FILE)
        models = {
            MODEL_FILES[precision]: (model, broken_rules)
            for precision, model in _models(original, calibrate, half=half, for_onnx_runtime=not inline).items()
        }
        if pde_layers(classifier):
            models[FIELDS_FILE] = (convert_fields(classifier, for_onnx_runtime=not inline), broken_fields_rules)
        for name, (model, rules) in models.items():
            write(without_functions(model) if inline else model, classifier.preset, folder / name, rules)
        if saved_model:
            write_saved_model(classifier, trace(classifier), folder / SAVED_MODEL)
        images = synthetic_images(*classifier.input_shape[1:])
        if original.test is not None:
            images[TEST_IMAGES] = original.test.images
        reports = prove(classifier, folder, images, saved_model=saved_model)
        _require_passed(reports)
        card = ModelCard(
            preset=classifier.preset,
            parameters=count_parameters(classifier),
            macs=count_macs(classifier),
            opset=OPSET,
            training=original.training,
            metrics=original.metrics,
            parity={report.candidate: report.to_dict() for report in reports},
        )
        package = ModelPackage(folder, write_card(folder, card))
        variants = [compare_variant(package, precision, images) for precision in package.precisions[1:]]
        _require_passed(variants)
        card = replace(card, variants={report.precision: _measured(report, original, package) for report in variants})
        (folder / README_FILE).write_text(model_readme(card), encoding="utf-8")
        write_card(folder, card)
    return [*reports, *variants]


def _models(original: Original, calibrate: Path | None, *, half: bool, for_onnx_runtime: bool) -> dict[Precision, Any]:
    """Return the network as an `onnx.ModelProto` in every precision that is wanted."""
    classifier = original.classifier
    images = None
    if calibrate is not None:
        images = load_training_images(original.training, classifier.preset, calibrate)
    model = convert_classifier(classifier, for_onnx_runtime=for_onnx_runtime)
    models: dict[Precision, Any] = {"float32": model}
    if half:
        models["half"] = to_half(model)
    if images is not None:
        models["int8"] = to_int8(model, images)
    return models


def _require_passed(reports: Sequence[Report]) -> None:
    if not all(report.passed for report in reports):
        raise ParityError("the export differs from the network:\n" + "\n".join(map(str, reports)))


def _measured(report: VariantReport, original: Original, package: ModelPackage) -> dict[str, Any]:
    """Return what the card says of a file of less precision."""
    values: dict[str, Any] = {"parity": report.to_dict()}
    if original.test is not None:
        with Predictor(package, precision=report.precision, device="cpu") as predictor:
            predicted = predictor.predict_proba(original.test.images).argmax(axis=1)
        accuracy = float(np.mean(predicted == original.test.labels))
        values |= {"test_accuracy": accuracy, "test_images": len(original.test)}
    return values
