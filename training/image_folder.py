"""Reads and summarises a folder of images to train on, and adapts a preset to its colours."""

import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median_low

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.datasets import Dataset, ImageFolder
from pdeinfer.errors import ImageError
from pdeinfer.images.convert import open_image
from pdeinfer.images.files import describe_left_out
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.package.package import ModelPackage
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import ImagesRecord
from pdeinfer.text import printable
from training.storage import allocator

# The part of the training images that is held out if the folder has no validation images. A recipe's own fraction fits
# its data set: 2 % of CIFAR-10 are 1,000 images, 2 % of a folder may be none.
VALIDATION_FRACTION = 0.1

_CHUNK = 1000
_SAMPLES = 500  # images whose size is looked at
_MAX_CLASSES = 30  # that the summary lists
_MAX_RATIO = 3  # of the largest class to the smallest, beyond which it recommends `--balance`


def adapt_preset(base: Preset, name: str, images: Array) -> Preset:
    """Return `base` under another name, normalised by the mean and standard deviation of its own images.

    Args:
        images: the training images, uint8 (N, H, W, C).

    Raises:
        PresetError: all pixels are equal.
    """
    mean, std = channel_statistics(images)
    if any(std):  # a channel of one value, as in green fluorescence, needs no scale
        std = tuple(each or 1.0 for each in std)
    return replace(base, name=name, input=replace(base.input, mean=mean, std=std))


def sample_sizes(folder: ImageFolder, spec: InputSpec) -> list[tuple[int, int]]:
    """Return the sizes (width, height) of up to 500 of the images, spread evenly, from their headers.

    Images are left out that cannot be read, and those that are only read in a process with limits.
    """
    files = [file for split in folder.files.values() for file, _ in split]
    sizes = []
    for file in files[:: -(-len(files) // _SAMPLES)]:
        with suppress(ImageError), open_image(file, spec) as opened:
            sizes.append(opened.whole_size)
    return sizes


def summarize(folder: ImageFolder, sizes: list[tuple[int, int]]) -> list[str]:
    """Return lines that tell the classes and splits of a folder, the sizes of its images and their imbalance."""
    names = [name for name in ("train", "val", "test") if name in folder.files]
    counts = {name: Counter(label for _, label in folder.files[name]) for name in names}
    lines = [f"{printable(str(folder.path))}: {len(folder):,} images of {len(folder.labels):,} classes"]
    if sizes:
        (width, height), (max_width, max_height) = min(sizes, key=np.prod), max(sizes, key=np.prod)
        median = median_low([min(size) for size in sizes])
        lines[0] += f", {width}x{height} to {max_width}x{max_height} pixels, the shorter side {median:,} in the median"
    column = max(5, *map(len, folder.labels[:_MAX_CLASSES]))
    lines.append(f"  {'':<{column}}" + "".join(f" {name:>7}" for name in names))
    for index, label in enumerate(folder.labels[:_MAX_CLASSES]):
        lines.append(f"  {label:<{column}}" + "".join(f" {counts[name][index]:>7,}" for name in names))
    if len(folder.labels) > _MAX_CLASSES:
        lines.append(f"  and {len(folder.labels) - _MAX_CLASSES:,} more classes")
    lines.append(f"  {'total':<{column}}" + "".join(f" {counts[name].total():>7,}" for name in names))
    train = [counts["train"][index] for index in range(len(folder.labels))]
    if max(train) > _MAX_RATIO * min(train):
        lines.append(
            f"imbalanced: {min(train):,} to {max(train):,} training images a class; --balance weighs all classes alike"
        )
    return lines


def warn_of_other_splits(model: ModelPackage, folder: ImageFolder) -> None:
    """Warn if a model may have learnt from test images of a folder, as other photos were held out in its training."""
    card = model.card
    images = None if card.training_record is None else card.training_record.images
    if images is None or not set(card.preset.labels) & set(folder.labels):  # trained on something else
        return
    if _how_test_was_chosen(images) != (folder.split_method if folder.is_test_held_out else "by the user"):
        _warn(
            f"warning: {card.preset.name} was trained with test images that were chosen in another way. If it has seen "
            "these photos, it has learnt from some of the test images, and the test accuracy will be too high"
        )


def _how_test_was_chosen(images: ImagesRecord) -> str | None:
    return "by the user" if images.test_fraction is None else images.split_method


def read_images(folder: ImageFolder, spec: InputSpec, out: Path, *, is_isolated: bool) -> tuple[Dataset, int]:
    """Return the images of a folder and how many of them cannot be read; name these and what is left out on stderr.

    Args:
        spec: the images wanted.
        out: the folder of the training; images that would fill the memory are held beside it.
        is_isolated: decode in a process with limits.
    """
    allocate = allocator(len(folder) * spec.height * spec.width * spec.channels, out)
    with IsolatedDecoders() as decoders:
        decode = decoders.to_array if is_isolated else decoders.to_array_where_needed
        dataset, errors = folder.read(spec, decode, allocate)
    for error in errors:
        _warn(f"left out: {error}")
    if errors:
        _warn(f"{len(errors):,} of {len(folder):,} images cannot be read and are left out")
    for line in describe_left_out(folder.left_out):
        _warn(line)
    return dataset, len(errors)


def _warn(message: str) -> None:
    print(f"pdeinfer: {printable(message)}", file=sys.stderr)


def channel_statistics(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel's pixels, scaled to 0..1, to four digits.

    Args:
        images: uint8 (N, H, W, C).
    """
    counts = np.zeros((images.shape[-1], 256))  # a histogram per channel: exact, and small for any N
    for start in range(0, len(images), _CHUNK):
        for channel in range(len(counts)):
            counts[channel] += np.bincount(images[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    means = shares @ values
    variances = ((values - means[:, np.newaxis]) ** 2 * shares).sum(axis=1)
    return tuple(round(float(mean), 4) for mean in means), tuple(round(float(std), 4) for std in np.sqrt(variances))
