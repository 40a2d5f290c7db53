"""Builds the small networks that compute a PDE layer's velocity, diffusivity and start from its input."""

import keras

from pdeinfer.nn.blocks import basic_block_layer, batch_norm, conv
from pdeinfer.spec.pde_spec import LearnedField, LearnedVelocity, PeronaMalik, Start


def velocity_fields(
    velocity: LearnedVelocity | None, channels: int, dtype: keras.DTypePolicy, epsilon: float
) -> list[keras.Layer]:
    """Return the layers that make u and v of an input with `channels`: two, or one for both, or none."""
    if velocity is None:
        return []
    if velocity == "preactivation":
        return [_preactivation_field("velocity", channels, dtype, epsilon)]
    return [_learned_field(velocity, name, channels, dtype, epsilon) for name in ("u", "v")]


def diffusivity_fields(
    diffusivity: LearnedField | PeronaMalik | float | None, channels: int, dtype: keras.DTypePolicy, epsilon: float
) -> list[keras.Layer]:
    """Return the layers that make Dx and Dy of an input with `channels`, or none if they have no weights."""
    if isinstance(diffusivity, str):
        names = ("diffusivity_x", "diffusivity_y")
        return [_learned_field(diffusivity, name, channels, dtype, epsilon) for name in names]
    return []


def start_layers(start: Start, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers, one after the other, that make the initial state of an input with `channels`."""
    return [basic_block_layer(channels, "start", dtype)] if start == "residual" else []


def _learned_field(
    field: LearnedField, name: str, channels: int, dtype: keras.DTypePolicy, epsilon: float
) -> keras.Layer:
    """Return `relu(BatchNorm(g(h)))`, a field >= 0 of h's shape (N, H, W, C); g as `field` says (see `PdeSpec`)."""
    norm, relu = batch_norm(epsilon, name="norm", dtype=dtype), keras.layers.ReLU(name="relu", dtype=dtype)
    if field == "residual":
        block = basic_block_layer(channels, "block", dtype)
        return keras.Model(block.input, relu(norm(block.output)), name=name)
    if field == "identity":
        return keras.Sequential([norm, relu], name=name)
    if field == "depthwise":
        convolution = keras.layers.DepthwiseConv2D(
            3, padding="same", use_bias=False, depthwise_initializer="he_normal", name="conv", dtype=dtype
        )
    else:
        convolution = conv(channels, kernel_size=1 if field == "pointwise" else 3, name="conv", dtype=dtype)
    return keras.Sequential([convolution, norm, relu], name=name)


def _preactivation_field(name: str, channels: int, dtype: keras.DTypePolicy, epsilon: float) -> keras.Layer:
    """Return `conv3x3(relu(BatchNorm(h)))`, a field of either sign and h's shape (N, H, W, C).

    Its kernel is drawn ten times smaller than He-normal: a random velocity of full size blurs and tears the image over
    the steps, and the network then trains worse.
    """
    slow = keras.initializers.VarianceScaling(scale=0.02, mode="fan_in", distribution="truncated_normal")
    return keras.Sequential(
        [
            batch_norm(epsilon, name="norm", dtype=dtype),
            keras.layers.ReLU(name="relu", dtype=dtype),
            conv(channels, kernel_initializer=slow, name="conv", dtype=dtype),
        ],
        name=name,
    )
