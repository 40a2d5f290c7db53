"""Counts a network's parameters and multiply-adds from its layers."""

import keras

from pdeinfer.nn.global_layer import GlobalLayer
from pdeinfer.nn.networks import Classifier


def count_parameters(classifier: Classifier) -> int:
    """Return the number of trainable parameters."""
    return sum(int(keras.ops.size(weight)) for weight in classifier.trainable_weights)


def count_macs(classifier: Classifier) -> int:
    """Return the multiply-adds of classifying one image: those of convolutions, dense layers and PDE steps.

    A step of the scheme (`pdeinfer.pde.step`) multiplies seven times per pixel and channel, once less without
    advection; the source is multiplied once, for all steps. As is usual, normalisation, activations, pooling and what
    a PDE layer computes once per image pixel by pixel, such as the Perona-Malik diffusivity, are not counted.
    """
    return sum(_layer_macs(layer) for layer in classifier.layers)


def _layer_macs(layer: keras.Layer) -> int:
    if isinstance(layer, GlobalLayer):
        _, height, width, channels = layer.output.shape
        per_pixel = sum(_weights(part) for part in layer.inner_layers())
        per_step = 7 - (layer.spec.velocity is None)
        per_channel = layer.spec.num_steps * per_step + (layer.spec.source is not None)
        return int(height * width * (per_pixel + channels * per_channel))
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        _, height, width, _ = layer.output.shape
        return int(height * width * _weights(layer))
    return _weights(layer)


def _weights(layer: keras.Layer) -> int:
    """Return the number of kernel weights of a convolution or dense layer, or of a model of such layers."""
    if isinstance(layer, keras.Model):
        return sum(_weights(part) for part in layer.layers)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
        return int(keras.ops.size(layer.kernel))
    return 0
