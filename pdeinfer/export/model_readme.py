"""Writes the files of a model package that repeat its card: the README and those of Hugging Face."""

from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.export.hugging_face import readme_header, write_configs
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import LITERT_INT8, LITERT_INT8_FILE, MODEL_FILES
from pdeinfer.spec.networks import ResidualNetwork
from pdeinfer.spec.training_record import DatasetName, TrainingRecord
from pdeinfer.text import round_up

README_FILE = "README.md"

_DATA: dict[DatasetName, str] = {
    "digits": """\
The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, from the UCI repository's "Optical Recognition
of Handwritten Digits" (Alpaydin & Kaynak, 1998; CC BY 4.0).""",
    "mnist": """\
MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 pixels (LeCun, Cortes & Burges;
CC BY-SA 3.0).""",
    "cifar10": """\
CIFAR-10: 50,000 training and 10,000 test photographs of ten kinds of objects, 32x32 pixels (Krizhevsky, "Learning
Multiple Layers of Features from Tiny Images", 2009; its authors state no licence).""",
    "folder": "A private folder of images: {splits}.",
}
_LICENCE = "The weights are under the Apache License 2.0, as pdeinfer is. The data's own terms are above."
_UNKNOWN_LICENCE = "The maker of this model decides; pdeinfer's own licence does not cover it."
_LIMITS = """\
- The model knows {classes} classes and nothing else: it assigns every image to one of them. {calibration}
- Images are resized to {size} pixels. Details that do not survive this cannot be told apart.
- The accuracy was measured on test images from the same source as the training images. Other cameras, crops and
  backgrounds lower it: measure it on your own images before you rely on it."""


_UNCALIBRATED = "Its probabilities are\n  softmax outputs and are not calibrated."
_CALIBRATION = {"ece_after", "ece_before", "images", "measured_on", "temperature"}
_CALIBRATED = "Its probabilities are\n  calibrated for images like those of the training."


def write_descriptions(card: ModelCard, folder: Path) -> None:
    """Write `README.md` and the files of `pdeinfer.export.hugging_face.write_configs`.

    Raises:
        MissingDependencyError: PyYAML is not installed.
    """
    (folder / README_FILE).write_text(model_readme(card), encoding="utf-8")
    write_configs(card.preset, folder)


def model_readme(card: ModelCard) -> str:
    """Return the README of a model package as Markdown: a YAML header, use, figures, data, training, limits, licence.

    Raises:
        MissingDependencyError: PyYAML is not installed.
    """
    preset, spec, record = card.preset, card.preset.input, card.training_record
    size = f"{spec.height}x{spec.width}"
    colour = "grey" if spec.channels == 1 else "colour"
    is_ours = record is not None and record.images is None
    sections = {
        "Use": f"```\npdeinfer predict IMAGE --model PATH/TO/{preset.name}\n```\n\n"
        f'In Python: `pdeinfer.Predictor("PATH/TO/{preset.name}").predict(image)`. A model that is bundled with '
        "pdeinfer is found by its name alone.",
        "Figures": _table(_figures(card)),
        "Data": "" if record is None else _data(record),
        "Training": "" if record is None else _table(_training(record)),
        "Limits": "\n".join(
            [
                _LIMITS.format(
                    classes=len(preset.labels),
                    size=size,
                    calibration=_CALIBRATED if card.metrics.get("calibration") else _UNCALIBRATED,
                ),
                *_weakest(card),
            ]
        ),
        "Licence": _LICENCE if is_ours else _UNKNOWN_LICENCE,
    }
    kind = "A residual network" if isinstance(preset.network, ResidualNetwork) else "A network of one channel"
    pde = " Its PDE layers solve a diffusion-advection equation inside the network." if preset.pde else ""
    title = f"{readme_header(card, 'apache-2.0' if is_ours else 'unknown')}\n# {preset.name}"
    summary = f"{kind} that classifies {colour} images of {size} pixels: {', '.join(preset.labels)}.{pde}"
    parts = [title, summary, *(f"## {name}\n\n{text}" for name, text in sections.items() if text)]
    return "\n\n".join(parts) + "\n"


def _figures(card: ModelCard) -> dict[str, str]:
    figures = {"parameters": f"{card.parameters:,}", "multiply-adds per image": f"{card.macs:,}"}
    metrics = {name: value for name, value in card.metrics.items() if value is not None}  # any may be missing
    if "test_accuracy" in metrics:
        figures["test accuracy"] = _accuracy(metrics)
    if "validation_accuracy" in metrics:
        figures["validation accuracy (it chose the epoch)"] = f"{100 * metrics['validation_accuracy']:.2f} %"
    if metrics.get("calibration", {}).keys() >= _CALIBRATION:
        figures["calibration error (ECE)"] = (
            "{ece_after:.3f} on {images:,} {measured_on}; {ece_before:.3f} before the temperature, {temperature:.3g}"
        ).format(**metrics["calibration"])
    for name, report in card.parity.items():
        if "comparisons" in report:
            gap = max(comparison["max_relative"] for comparison in report["comparisons"])
            # The smaller batch sizes repeat some of the images, and each field has a row.
            counts = {comparison.get("images"): comparison["count"] for comparison in report["comparisons"]}
            figures[f"{name}, against {report['reference']}"] = (
                f"equal within {round_up(gap):.1e} (relative), {sum(counts.values()):,} images"
            )
    names = {LITERT_INT8: LITERT_INT8_FILE}
    names |= {precision: f"{file} (precision {precision})" for precision, file in MODEL_FILES.items()}
    for key, name in names.items():
        if key not in card.variants:
            continue
        variant = card.variants[key]
        if "test_accuracy" in variant:
            figures[f"{name}: test accuracy"] = _accuracy(variant)
        figures[f"{name}, against {variant['parity']['reference']}"] = "; ".join(
            f"{row['images']}: {row['top1_equal']:,} of {row['count']:,} labels the same, probabilities within "
            f"{round_up(row['max_absolute']):.2g}"
            for row in variant["parity"]["comparisons"]
        )
    return figures


def _accuracy(measured: dict[str, Any]) -> str:
    images = f" of {measured['test_images']:,} images" if "test_images" in measured else ""
    return f"{100 * measured['test_accuracy']:.2f} %{images}"


def _data(record: TrainingRecord) -> str:
    splits = {} if record.images is None else record.images.splits
    return _DATA[record.dataset].format(
        splits=", ".join(f"{name} {split.files:,} files" for name, split in splits.items())
    )


def _training(record: TrainingRecord) -> dict[str, str]:
    recipe = dict(record.recipe)
    temperature = recipe.pop("temperature", None)
    if recipe.get("distillation_weight"):
        recipe["distillation_temperature"] = temperature
    if record.images is not None and "val" in record.images.splits and record.images.validation_fraction is None:
        recipe.pop("validation_fraction", None)  # the folder had validation images of its own
    rows: dict[str, Any] = {
        name.replace("_", " "): value for name, value in recipe.items() if value not in (None, 0, False)
    }
    rows |= {"seed": record.seed, "precision": record.precision}
    if record.init is not None:
        rows["started from"] = record.init.model
    if record.teacher is not None:
        rows["distilled from"] = record.teacher.model
    outcome = record.outcome
    if outcome is not None:
        rows |= {"best epoch": outcome.best_epoch, "device": outcome.device}
    if record.git_commit is not None:
        rows["git commit"] = record.git_commit
    if outcome is not None:
        rows["minutes"] = f"{outcome.seconds / 60:.0f}"
        rows["software"] = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    return {name: str(value) for name, value in rows.items()}


def _weakest(card: ModelCard) -> list[str]:
    """Return a line on the class with the lowest recall, where the card has a confusion matrix."""
    labels, rows = card.preset.labels, card.metrics.get("confusion") or []
    if [len(row) for row in rows] != [len(labels)] * len(labels):
        return []
    confusion = np.asarray(rows)
    images = confusion.sum(axis=1)
    recall = np.where(images, confusion.diagonal() / np.maximum(images, 1), 1.0)  # nothing is known of a class without
    worst = int(recall.argmin())
    mistakes = confusion[worst].copy()
    mistakes[worst] = 0
    if not mistakes.any():
        return []
    return [
        f"- The weakest class is {labels[worst]}: {100 * recall[worst]:.1f} % of its test images are recognised. It is "
        f"most often mistaken for {labels[int(mistakes.argmax())]}."
    ]


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
