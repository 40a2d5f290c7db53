"""Adapts a preset to a folder of images: other labels, another input size and normalisation."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from pdeinfer.datasets import Array
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import Preset

# The part of the training images that is held out if the folder has no validation images. A recipe's own fraction fits
# its data set: 2 % of CIFAR-10 are 1,000 images, 2 % of a folder may be none.
VALIDATION_FRACTION = 0.1

_CHUNK = 1000


def own_name(preset: str, data_dir: Path) -> str:
    """Return the name of a training on a folder of images: "photos-global" for "cifar10-global" on `photos`."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", data_dir.resolve().name).strip("-._")
    _, _, network = preset.partition("-")
    return f"{folder or 'images'}-{network}"


def own_preset(base: Preset, name: str, labels: tuple[str, ...], images: Array, spec: InputSpec) -> Preset:
    """Return a preset with `base`'s network for other images, normalised by their own mean and standard deviation.

    Args:
        images: the training images, uint8 (N, H, W, C). spec: their size; its mean and std are ignored.

    Raises:
        PresetError: the network cannot take such images, or all pixels are equal.
    """
    mean, std = channel_statistics(images)
    return replace(base, name=name, labels=labels, input=replace(spec, mean=mean, std=std))


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
