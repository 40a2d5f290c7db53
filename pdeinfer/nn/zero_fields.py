"""Counts the channels of a trained network's PDE layers in which a field has died: it is zero for every image."""

import keras
import numpy as np

from pdeinfer.nn.global_layer import GlobalLayer
from pdeinfer.nn.networks import Classifier


def count_zero_fields(classifier: Classifier, images: np.ndarray) -> dict[str, dict[str, int]]:
    """Return how many channels of each field are zero at every point of every image.

    By default a learned field ends in a relu. Where it never opens, the field contributes nothing and gets no gradient
    that could revive it.

    Args:
        images: uint8 (N, height, width, channels), of the kind that the network was trained on.

    Returns:
        For each PDE layer, "layer1", "layer2", ..., the zero channels of those of "u", "v", "Dx", "Dy" and "f" that it
        learns, and the layer's "channels". "Dx" stands for an isotropic diffusivity.
    """
    layers = classifier.pde_layers()
    if not layers:
        return {}
    inputs = keras.Model(classifier.input, {name: layer.input for name, layer in layers.items()})
    starts = inputs.predict(images, verbose=0)
    counts = {}
    for name, layer in layers.items():
        counts[name] = {"channels": starts[name].shape[-1]} | {
            symbol: _zero_channels(field(starts[name], training=False)) for symbol, field in _learned_fields(layer)
        }
    return counts


def _zero_channels(field: keras.KerasTensor) -> int:
    return int((keras.ops.convert_to_numpy(field) == 0).all(axis=(0, 1, 2)).sum())


def _learned_fields(layer: GlobalLayer) -> list[tuple[str, keras.Layer]]:
    groups = (
        (("u", "v"), layer.velocity_fields),
        (("Dx", "Dy"), layer.diffusivity_fields),
        (("f",), layer.source_layers),
    )
    return [pair for symbols, fields in groups for pair in zip(symbols, fields, strict=False)]
