"""Writes and reads TensorFlow's SavedModel of a network."""

from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import Classify
from pdeinfer.export.rewrite.traced import trace
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME


def write_saved_model(classifier: Any, folder: Path) -> None:
    """Write a network as a SavedModel.

    Its one signature, `serving_default`, takes `image` and returns `probabilities`. It holds plain TensorFlow
    operations and variables: reading it needs neither Keras nor pdeinfer.
    """
    import tensorflow as tf

    module = as_module(classifier)
    module.classify = trace(classifier)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.classify})


def as_module(classifier: Any) -> Any:
    """Return a `tf.Module` that holds the variables of a network, where TensorFlow's converters look for them."""
    import tensorflow as tf

    module = tf.Module()
    module.variables_of_the_network = [variable.value for variable in classifier.variables]
    return module


def read_saved_model(folder: Path) -> Classify:
    """Load a SavedModel and return its function, uint8 (N, H, W, C) -> float32 probabilities (N, classes)."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]

    def classify(images: Array) -> Array:
        return np.asarray(signature(**{INPUT_NAME: tf.constant(images)})[OUTPUT_NAME])

    return classify
