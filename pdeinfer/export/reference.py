"""Writes what a network's original computes for some images, to compare with where there is no TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import synthetic_images
from pdeinfer.datasets import load_dataset
from pdeinfer.errors import MissingDependencyError
from pdeinfer.images.convert import to_array
from pdeinfer.package.package import REFERENCE_FILE
from pdeinfer.spec.networks import InputSpec


def write_reference(classifier: Any, folder: Path) -> None:
    """Write `reference.npz`: images, and the probabilities of the Keras network on TensorFlow, on the CPU."""
    images = reference_images(classifier.preset.input)
    np.savez_compressed(
        folder / REFERENCE_FILE,
        images=images,
        probabilities=keras_probabilities(classifier, images),
        original=np.array(original_name()),
    )


def keras_probabilities(classifier: Any, images: Array) -> Array:
    """Return the probabilities of the Keras network on TensorFlow, on the CPU: GPUs round differently."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return np.asarray(tf.nn.softmax(classifier(images, training=False)))


def original_name() -> str:
    """Return the name of the original for reports."""
    import tensorflow as tf

    return f"Keras on TensorFlow {tf.__version__}"


def reference_images(spec: InputSpec) -> Array:
    """Return 32 uint8 images (32, height, width, channels): handwritten digits, noise, and extremes.

    The digits are those of scikit-learn, whatever the network was trained on. Images of a data set may be private, or
    may not be copied. Without scikit-learn there are 20 images.
    """
    height, width, channels = spec.height, spec.width, spec.channels
    synthetic = synthetic_images(height, width, channels)
    noise = [image for name in ("noise", "smooth noise", "black-and-white noise") for image in synthetic[name][:4]]
    row = np.linspace(0, 255, width).astype(np.uint8)[np.newaxis, :, np.newaxis]
    column = np.linspace(0, 255, height).astype(np.uint8)[:, np.newaxis, np.newaxis]
    checks = (np.indices((height, width)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., np.newaxis]
    patterns = [np.broadcast_to(pattern, (height, width, channels)) for pattern in (row, column, checks, 255 - checks)]
    return np.stack([*_digits(spec), *noise, *synthetic["extremes"], *patterns])


def _digits(spec: InputSpec) -> list[Array]:
    try:
        images = load_dataset("digits", None).test.images[:12]
    except MissingDependencyError:
        return []
    return [to_array(image, spec) for image in images]
