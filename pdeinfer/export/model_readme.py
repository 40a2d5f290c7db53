"""Writes what people read of a model package: its README, made from its card alone."""

from typing import Any

import numpy as np

from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import MODEL_FILES
from pdeinfer.spec.presets import ResidualNetwork

README_FILE = "README.md"

_DATA = {
    "digits": """\
The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, from the UCI repository's "Optical Recognition
of Handwritten Digits" (Alpaydin & Kaynak, 1998; CC BY 4.0).""",
    "mnist": """\
MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 pixels (LeCun, Cortes & Burges;
CC BY-SA 3.0).""",
    "cifar10": """\
CIFAR-10: 50,000 training and 10,000 test photographs of ten kinds of objects, 32x32 pixels (Krizhevsky, "Learning
Multiple Layers of Features from Tiny Images", 2009; its authors state no licence).""",
    "folder": "A folder of its maker's own images: {images}.",
}
_LICENCE = "The weights are under the Apache License 2.0, as pdeinfer is; the data's own terms are above."
_LIMITS = """\
- It knows {classes} classes and nothing else: every image, of whatever, is answered with one of them. A probability is
  a softmax output, and has not been calibrated.
- Images are brought to {size} pixels: what does not show at that size cannot be told apart.
- The accuracy is that of test images from the same source as the training images. Other cameras, crops and
  backgrounds lower it: measure it on your own images before you rely on it."""


def model_readme(card: ModelCard) -> str:
    """Return the README of a model package as Markdown: use, figures, data, training, limits, licence."""
    preset, spec = card.preset, card.preset.input
    size = f"{spec.height}x{spec.width}"
    colour = "grey" if spec.channels == 1 else "colour"
    sections = {
        "Use": f"```\npdeinfer predict IMAGE --model PATH/TO/{preset.name}\n```\n\n"
        f'In an application: `pdeinfer.Predictor("PATH/TO/{preset.name}").predict(image)`. A model that is bundled '
        "with pdeinfer goes by its name alone.",
        "Figures": _table(_figures(card)),
        "Data": _data(card),
        "Training": _table(_training(card.training)) if card.training else "",
        "Limits": "\n".join([_LIMITS.format(classes=len(preset.labels), size=size), *_weakest(card)]),
        # Of what we do not know where it comes from we cannot say.
        "Licence": _LICENCE if card.training and not card.training.get("images") else "That of its maker.",
    }
    kind = "A residual network" if isinstance(preset.network, ResidualNetwork) else "A network of one channel"
    pde = " with PDE layers (a diffusion-advection equation, solved inside the network)" if _has_pde(card) else ""
    head = (
        f"# {preset.name}\n\n{kind}{pde} that classifies {colour} images of {size} pixels: {', '.join(preset.labels)}."
    )
    return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items() if text)]) + "\n"


def _has_pde(card: ModelCard) -> bool:
    network = card.preset.to_dict()["network"]
    return network.get("pde") is not None or isinstance(network.get("feature"), dict)


def _figures(card: ModelCard) -> dict[str, str]:
    figures = {"parameters": f"{card.parameters:,}", "multiply-adds of one image": f"{card.macs:,}"}
    metrics = card.metrics
    if "test_accuracy" in metrics:
        figures["accuracy on test images"] = f"{100 * metrics['test_accuracy']:.2f} % of {metrics['test_images']:,}"
    if "validation_accuracy" in metrics:
        figures["accuracy on the images that chose the epoch"] = f"{100 * metrics['validation_accuracy']:.2f} %"
    for name, report in card.parity.items():
        if "comparisons" in report:
            gap = max(comparison["max_relative"] for comparison in report["comparisons"])
            # At smaller batch sizes some of the images were compared again, and the fields have a row each.
            counts = {comparison.get("images"): comparison["count"] for comparison in report["comparisons"]}
            figures[f"{name}, against {report['reference']}"] = (
                f"equal within {gap:.1e} (relative), {sum(counts.values()):,} images"
            )
    for precision, file in MODEL_FILES.items():
        if precision not in card.variants:
            continue
        variant, name = card.variants[precision], f"{file} (precision {precision})"
        if "test_accuracy" in variant:
            accuracy = f"{100 * variant['test_accuracy']:.2f} % of {variant['test_images']:,}"
            figures[f"{name}: accuracy on test images"] = accuracy
        figures[f"{name}, against {variant['parity']['reference']}"] = "; ".join(
            f"{row['images']}: {row['top1_equal']:,} of {row['count']:,} labels the same, probabilities within "
            f"{row['max_absolute']:.1g}"
            for row in variant["parity"]["comparisons"]
        )
    return figures


def _data(card: ModelCard) -> str:
    if not card.training:
        return ""
    images = card.training.get("images") or {}
    splits = ", ".join(f"{name} {part['files']:,} files" for name, part in images.get("splits", {}).items())
    return _DATA[card.training["recipe"]["dataset"]].format(images=splits)


def _training(training: dict[str, Any]) -> dict[str, str]:
    recipe = training["recipe"]
    rows = {name.replace("_", " "): str(value) for name, value in recipe.items() if value not in (None, 0, 0.0, False)}
    rows |= {"seed": str(training["seed"]), "precision": training["precision"]}
    if training.get("init"):
        rows["started from"] = training["init"]["model"]
    for name in ("best_epoch", "device", "git_commit"):
        if training.get(name) is not None:
            rows[name.replace("_", " ")] = str(training[name])
    if "seconds" in training:
        rows["minutes"] = f"{training['seconds'] / 60:.0f}"
    if "versions" in training:
        rows["software"] = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return rows


def _weakest(card: ModelCard) -> list[str]:
    """Return a line on the class that is recognised worst, where the card has a confusion matrix."""
    if "confusion" not in card.metrics:
        return []
    confusion, labels = np.asarray(card.metrics["confusion"]), card.preset.labels
    recall = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    worst = int(recall.argmin())
    mistakes = confusion[worst].copy()
    mistakes[worst] = 0
    if not mistakes.any():
        return []
    return [
        f"- Worst of the classes: {labels[worst]}, of which {100 * recall[worst]:.1f} % of the test images are "
        f"recognised; it is taken for {labels[int(mistakes.argmax())]} most often."
    ]


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
