"""Turns a trained network into a model package, and proves the package equal to the network."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import Classify, in_batches, synthetic_images
from pdeinfer.checks.report import Report
from pdeinfer.checks.variants import compare_reduced, open_model
from pdeinfer.datasets import Split, load_training_images, load_validation_split
from pdeinfer.errors import ExportError, ParityError
from pdeinfer.export.litert import convert, open_litert, require_litert
from pdeinfer.export.model_readme import write_descriptions
from pdeinfer.export.onnx_file import OPSET, write
from pdeinfer.export.original import Original, check_output, find_source, load_original
from pdeinfer.export.proof import SAVED_MODEL, TEST_IMAGES, check_finite, prove
from pdeinfer.export.quantization import CALIBRATION_IMAGES, to_int8
from pdeinfer.export.reference import write_reference
from pdeinfer.export.rewrite.graph import convert_classifier, convert_stages, without_functions
from pdeinfer.export.rules import broken_fields_rules, broken_rules
from pdeinfer.export.saved_model import write_saved_model
from pdeinfer.export.temperature import scale_probabilities
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import (
    FIELDS_FILE,
    KERAS_FILE,
    LITERT_FILE,
    LITERT_INT8,
    LITERT_INT8_FILE,
    MODEL_FILES,
    ONNX_FILE,
)
from pdeinfer.package.writing import new_package, write_card

logger = logging.getLogger(__name__)

# An int8 file for LiteRT may lose this share of the test images, and one for ONNX Runtime without a warning. Decision 9
# has the same limit for bundled files.
MAX_ACCURACY_LOSS = 0.003


def export_package(  # noqa: PLR0913  # one keyword for each part that a package may have
    source: str | Path,
    output: str | Path,
    *,
    inline: bool = False,
    saved_model: bool = False,
    litert: bool = False,
    calibrate: Path | None = None,
    temperature: bool = False,
    force: bool = False,
) -> list[Report]:
    """Write the model package of a trained network, prove it equal to the network, and return the proof.

    An int8 file cannot match exactly. The reports say how far it is from `model.onnx`, and the card how well it
    classifies the data set's test images, if they are available.

    Args:
        source: the folder of a training or a package, a `.keras` file, or the name of a bundled model, as
            `pdeinfer.package.zoo` spells them. The new card keeps what a package's card says of the training and its
            measurements.
        output: the package's folder.
        inline: write ONNX files without functions, for tools that cannot read functions; the operators of the PDE
            layers are then part of the graph.
        saved_model: add a TensorFlow SavedModel.
        litert: add `model.tflite`, for LiteRT.
        calibrate: add `model.int8.onnx`, for CPUs, calibrated on the images in this folder (see
            `pdeinfer.datasets.load_training_images`). A warning is logged if it classifies the test images less
            accurately than `MAX_ACCURACY_LOSS` allows. With `litert`, also add `model.int8.tflite`; it is left out,
            with a warning, if it is less accurate than that or there are no test images.
        temperature: divide the logits by the temperature that fits the validation images of the training best (see
            `pdeinfer.export.temperature`). Every file has it, `model.keras` too, and the proof holds for that network.
        force: replace the package at `output`. A warning is logged if it has files that this export does not write.

    Raises:
        ExportError: `source` is not a network of this package, cannot be converted, or has probabilities that are not
            finite; or `temperature` is asked for a calibrated package; or `output` lies in a package or in the folder
            of images that it was trained on, or is the source itself and would lose files.
        ModelPackageError: `output` exists and `force` is False, or it cannot be written; or `source` is a damaged
            package.
        DatasetError, ImageError: `calibrate` has no usable training images; or, with `temperature`, the validation
            images are not where they were, all classified correctly, or fitted best at a limit of the temperature.
        ParityError: an exported file differs from the network; the message is the report. Nothing is left behind.
        MissingDependencyError: TensorFlow, tf2onnx or, with `litert`, LiteRT is not installed.
        BackendError: Keras runs on another backend than TensorFlow.
    """
    if litert:
        require_litert(f"exporting {LITERT_FILE}")
    source = find_source(source)
    check_output(source, Path(output))
    with new_package(output, force=force) as folder:
        calibrated = calibrate is not None
        written = {
            MODEL_FILES["int8"]: calibrated,
            LITERT_FILE: litert,
            LITERT_INT8_FILE: litert and calibrated,
            SAVED_MODEL: saved_model,
        }
        _check_lost_files(source, Path(output), {name for name, is_asked in written.items() if is_asked})
        original = load_original(source, calibrate)
        images = synthetic_images(*original.classifier.input_shape[1:])
        check_finite(original.classifier, images)
        scaled = None
        if temperature:
            _check_uncalibrated(original)
            validation = load_validation_split(original.record, original.classifier.preset, original.data_dir)
            scaled = scale_probabilities(original.classifier, validation, original.test)
        if original.test is not None:
            images[TEST_IMAGES] = original.test.images
        calibration_images = None
        if calibrate is not None:
            preset = original.classifier.preset
            calibration_images = load_training_images(original.record, preset, calibrate, CALIBRATION_IMAGES)
        _write_models(original.classifier, folder, calibration_images, inline=inline)
        if saved_model:
            write_saved_model(original.classifier, folder / SAVED_MODEL)
        if litert:
            (folder / LITERT_FILE).write_bytes(convert(original.classifier))
        reports = prove(original.classifier, folder, images, saved_model=saved_model)
        variants = {}
        if calibration_images is not None:
            variants["int8"] = _measure_int8(original, folder, images)
            litert_int8 = _add_litert_int8(original, folder, images, calibration_images) if litert else None
            if litert_int8 is not None:
                variants[LITERT_INT8] = litert_int8
        every_report = [*reports, *(variant.report for variant in variants.values())]
        if not all(report.passed for report in every_report):
            raise ParityError("the export differs from the network:\n" + "\n".join(map(str, every_report)))
        write_reference(original.classifier, folder)
        card = _card(original, reports, variants, scaled)
        write_descriptions(card, folder)
        write_card(folder, card)
    return every_report


# The files that a package has on request.
_OPTIONS = {
    MODEL_FILES["int8"]: "--calibrate DIR",
    LITERT_FILE: "--format litert",
    LITERT_INT8_FILE: "--format litert --calibrate DIR",
    SAVED_MODEL: "--format saved_model",
}


def _check_lost_files(source: Path, output: Path, written: Collection[str]) -> None:
    """Log a warning if replacing `output` loses files; raise ExportError if it is the package that is exported."""
    lost = [name for name in _OPTIONS if name not in written and (output / name).exists()]
    if not lost:
        return
    names = ", ".join(f"{name} ({_OPTIONS[name]} writes it)" for name in lost)
    folder = source if source.is_dir() else source.parent
    if os.path.realpath(folder) == os.path.realpath(output):
        raise ExportError(f"{output} would lose {names}: add the option, or write to another folder")
    logger.warning("%s is replaced, and loses %s", output, names)


def _check_uncalibrated(original: Original) -> None:
    """Raise ExportError for a package with a temperature: a second one would replace what the card says of it."""
    if original.card is not None and original.card.metrics.get("calibration"):
        raise ExportError(
            f"{original.card.preset.name}: the package is calibrated already, and stays so without --fit-temperature: "
            "leave it out, or export the training"
        )


class _Variant(NamedTuple):
    """What was measured for a file of reduced precision.

    Attributes:
        report: how far it is from `model.onnx`.
        accuracy, expected: its accuracy on the test images, 0..1, and that of `model.onnx`; None without such images.
    """

    report: Report
    accuracy: float | None
    expected: float | None


def _write_models(classifier: Any, folder: Path, calibration: Array | None, *, inline: bool) -> None:
    """Write `model.keras` and the ONNX files, in int8 too if there are images to calibrate it."""
    preset = classifier.preset
    classifier.save(folder / KERAS_FILE)

    def write_onnx(name: str, model: Any, rules: Any) -> None:
        write(without_functions(model) if inline else model, preset, folder / name, rules)

    model = convert_classifier(classifier, for_onnx_runtime=not inline)
    write_onnx(MODEL_FILES["float32"], model, broken_rules)
    if classifier.pde_layers():
        write_onnx(FIELDS_FILE, convert_stages(classifier), broken_fields_rules)
    if calibration is not None:
        write_onnx(MODEL_FILES["int8"], to_int8(model, calibration), broken_rules)


def _measure_int8(original: Original, folder: Path, images: Mapping[str, Array]) -> _Variant:
    """Measure `model.int8.onnx`; log a warning if it is inaccurate."""
    measured = _measure(open_model(folder, "int8"), folder, images, original.test)
    _warn_of_loss(f"{MODEL_FILES['int8']} is inaccurate", measured)
    return measured


def _add_litert_int8(
    original: Original, folder: Path, images: Mapping[str, Array], calibration: Array
) -> _Variant | None:
    """Write and measure `model.int8.tflite`; warn and leave it out if it is inaccurate or there are no test images."""
    if original.test is None:
        logger.warning("%s was left out: there are no test images to measure it on", LITERT_INT8_FILE)
        return None
    content = convert(original.classifier, calibration)
    measured = _measure(open_litert(LITERT_INT8_FILE, content), folder, images, original.test)
    if _warn_of_loss(f"{LITERT_INT8_FILE} was left out", measured):
        return None
    (folder / LITERT_INT8_FILE).write_bytes(content)
    return measured


def _measure(
    candidate: tuple[str, Classify], folder: Path, images: Mapping[str, Array], test: Split | None
) -> _Variant:
    """Compare a candidate with `model.onnx` on sets of uint8 images (N, height, width, channels), by name."""
    reference = open_model(folder, "float32")
    report = compare_reduced(reference, candidate, images)
    if test is None:
        return _Variant(report, None, None)
    return _Variant(report, _accuracy(candidate[1], test), _accuracy(reference[1], test))


def _warn_of_loss(problem: str, measured: _Variant) -> bool:
    """Log a warning and return True if an int8 file classifies fewer test images correctly than it may."""
    accuracy, expected = measured.accuracy, measured.expected
    if accuracy is None or expected is None or round(expected - accuracy, 6) <= MAX_ACCURACY_LOSS:
        return False
    logger.warning(
        "%s: it classifies %.2f %% of the test images correctly, %s %.2f %%",
        *(problem, 100 * accuracy, ONNX_FILE, 100 * expected),
    )
    return True


def _card(
    original: Original,
    reports: Sequence[Report],
    variants: Mapping[str, _Variant],
    scaled: dict[str, Any] | None,
) -> ModelCard:
    from pdeinfer.nn import count_macs, count_parameters  # imports Keras

    classifier, test = original.classifier, original.test
    training, metrics = original.training_and_metrics()
    if scaled is not None:
        metrics.pop("test_loss", None)  # of the probabilities before the temperature
        metrics |= scaled

    def measured(variant: _Variant) -> dict[str, Any]:
        tested = {} if test is None else {"test_accuracy": variant.accuracy, "test_images": len(test)}
        return {"parity": variant.report.to_dict(), **tested}

    return ModelCard(
        preset=classifier.preset,
        parameters=count_parameters(classifier),
        macs=count_macs(classifier),
        opset=OPSET,
        training=training,
        metrics=metrics,
        parity={report.candidate: report.to_dict() for report in reports},
        variants={name: measured(variant) for name, variant in variants.items()},
    )


def _accuracy(classify: Classify, test: Split) -> float:
    """Return the share of the test images that are classified correctly."""
    predicted = in_batches(classify, test.images, 64).argmax(axis=1)
    return float(np.mean(predicted == test.labels))
