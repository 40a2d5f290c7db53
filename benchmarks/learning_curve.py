"""Measures what accuracy to expect from a number of photos, with and without a trained model to start from.

    python -m benchmarks.learning_curve --data-dir data --work build/learning-curve

CIFAR-10 stands for photos. A model is trained on five of its classes. Then `pdeinfer train` learns the other five,
which that model has never seen, from folders of 10 to 1,000 PNG files per class, by default settings: once from random
weights, once from the model. All 5,000 test images of the five classes measure it. Trainings that have finished are not
repeated, and an interrupted one resumes. The table is printed and written to WORK/learning-curve.md.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.markdown import machine, table
from pdeinfer.datasets import Split, load_dataset
from pdeinfer.spec.presets import PRESETS
from pdeinfer.spec.training_record import METRICS_FILE, RECORD_FILE

LABELS = PRESETS["cifar10-global"].labels
SEEN, NEW = LABELS[::2], LABELS[1::2]
COUNTS = (10, 30, 100, 300, 1000)
SEEDS = {10: 3, 30: 3, 100: 2}  # draws of photos; one of larger numbers
SOURCE_EPOCHS = 20


def main() -> int:
    """Train what is missing, then print and write the table."""
    parser = argparse.ArgumentParser(description="Measure accuracy against the number of photos.")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder with the CIFAR-10 files")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for photos and trainings")
    options = parser.parse_args()
    dataset = load_dataset("cifar10", options.data_dir)
    source = train_source(dataset.train, options.work)
    accuracies: dict[tuple[int, str], list[float]] = {}
    for count, seed in draws():
        photos = options.work / f"photos-{count}-{seed}"
        if not photos.exists():
            write_photos(photos, {"train": draw(dataset.train, count, seed), "test": of_classes(dataset.test, NEW)})
        for start, init in (("random", "none"), ("trained", str(source))):
            out = options.work / f"{photos.name}-{start}"
            train(photos, out, "--image-size", "32", "--init", init, "--seed", str(seed))
            metrics = json.loads((out / METRICS_FILE).read_text())
            accuracies.setdefault((count, start), []).append(metrics["test_accuracy"])
            print(f"{count} photos a class, seed {seed}, {start} weights: {metrics['test_accuracy']:.4f}", flush=True)
    text = machine() + "\n" + format_table(accuracies)
    (options.work / "learning-curve.md").write_text(text)
    print(text)
    return 0


def draws() -> Iterator[tuple[int, int]]:
    """Yield each number of photos per class with each seed."""
    for count in COUNTS:
        for seed in range(SEEDS.get(count, 1)):
            yield count, seed


def train_source(split: Split, work: Path) -> Path:
    """Train a model on the classes that are not measured, unless that is done; return its package."""
    package = work / "source"
    if not package.exists():
        photos = work / "source-photos"
        if not photos.exists():
            images = of_classes(split, SEEN)
            write_photos(photos, {"train": images, "test": {label: images[label][:100] for label in SEEN}})
        epochs = ("--epochs", str(SOURCE_EPOCHS))
        train(photos, work / "source-run", "--image-size", "32", "--init", "none", *epochs)
        run("pdeinfer", "export", str(work / "source-run"), "--output", str(package))
    return package


def of_classes(split: Split, labels: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the images of some classes by label, each uint8 (N, 32, 32, 3)."""
    return {label: split.images[split.labels == LABELS.index(label)] for label in labels}


def draw(split: Split, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return `count` images of each new class, drawn at random."""
    rng = np.random.default_rng(seed)
    return {label: rng.permutation(images)[:count] for label, images in of_classes(split, NEW).items()}


def write_photos(folder: Path, splits: dict[str, dict[str, np.ndarray]]) -> None:
    """Write images as `folder/SPLIT/LABEL/NUMBER.png`."""
    partial = folder.with_name(f"partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    for split, images_by_label in splits.items():
        for label, images in images_by_label.items():
            place = partial / split / label
            place.mkdir(parents=True)
            for number, pixels in enumerate(images):
                PIL.Image.fromarray(pixels).save(place / f"{number:05}.png")
    partial.rename(folder)


def train(photos: Path, out: Path, *options: str) -> None:
    """Run `pdeinfer train` unless the folder `out` has a finished training."""
    if (out / METRICS_FILE).exists():
        return
    if (out / RECORD_FILE).exists():
        run("pdeinfer", "train", str(photos), "--out", str(out), "--resume")
    else:
        run("pdeinfer", "train", str(photos), "--out", str(out), *options)


def run(program: str, *arguments: str) -> None:
    """Run a command of this environment."""
    subprocess.run(  # noqa: S603  # our own commands
        [sys.executable, "-m", program, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def format_table(accuracies: dict[tuple[int, str], list[float]]) -> str:
    """Return a row for each number of photos: the mean accuracy from both starts, with the range over the draws."""
    rows = []
    for count in COUNTS:
        random, trained = accuracies[count, "random"], accuracies[count, "trained"]
        gain = 100 * (statistics.mean(trained) - statistics.mean(random))
        rows.append([f"{count:,}", _percent(random), _percent(trained), f"{gain:+.1f}"])
    return table(["photos per class", "from random weights, %", "from a trained model, %", "gain"], rows)


def _percent(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f}-{100 * max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
