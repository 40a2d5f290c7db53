"""Where a PDE layer's velocity and diffusivity come from: small networks of the layer's input."""

import keras

from pdeinfer.nn.blocks import batch_norm, conv
from pdeinfer.presets import LearnedDiffusivity, LearnedVelocity


def velocity_fields(velocity: LearnedVelocity | None, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers that make u and v of an input with `channels`: two, or one for both, or none."""
    if velocity == "depthwise":
        return [_depthwise_field("u", dtype), _depthwise_field("v", dtype)]
    if velocity == "preactivation":
        return [_preactivation_field("velocity", channels, dtype)]
    return []


def diffusivity_fields(diffusivity: LearnedDiffusivity | float | None, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers that make Dx and Dy, or none where the diffusivity is not learned."""
    if diffusivity == "depthwise":
        return [_depthwise_field("diffusivity_x", dtype), _depthwise_field("diffusivity_y", dtype)]
    return []


def _depthwise_field(name: str, dtype: keras.DTypePolicy) -> keras.Layer:
    """Return `relu(BatchNorm(depthwise 3x3 conv(h)))`, a field >= 0 of h's shape (N, H, W, C)."""
    return keras.Sequential(
        [
            keras.layers.DepthwiseConv2D(
                3, padding="same", use_bias=False, depthwise_initializer="he_normal", name="conv", dtype=dtype
            ),
            batch_norm(name="norm", dtype=dtype),
            keras.layers.ReLU(name="relu", dtype=dtype),
        ],
        name=name,
    )


def _preactivation_field(name: str, channels: int, dtype: keras.DTypePolicy) -> keras.Layer:
    """Return `conv3x3(relu(BatchNorm(h)))`, a field of either sign and h's shape (N, H, W, C)."""
    return keras.Sequential(
        [
            batch_norm(name="norm", dtype=dtype),
            keras.layers.ReLU(name="relu", dtype=dtype),
            conv(channels, name="conv", dtype=dtype),
        ],
        name=name,
    )
