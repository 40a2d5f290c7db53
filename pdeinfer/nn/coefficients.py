"""Where a PDE layer's velocity and diffusivity come from: small networks of the layer's input."""

import keras

from pdeinfer.nn.blocks import batch_norm, conv
from pdeinfer.presets import LearnedDiffusivity, LearnedVelocity


def velocity_fields(velocity: LearnedVelocity | None, channels: int) -> list[keras.Layer]:
    """Return the layers that make u and v of an input with `channels`: two, or one for both, or none."""
    if velocity == "depthwise":
        return [_depthwise_field("u"), _depthwise_field("v")]
    if velocity == "preactivation":
        return [_preactivation_field(channels, "velocity")]
    return []


def diffusivity_fields(diffusivity: LearnedDiffusivity | float | None) -> list[keras.Layer]:
    """Return the layers that make Dx and Dy, or none where the diffusivity is not learned."""
    if diffusivity == "depthwise":
        return [_depthwise_field("diffusivity_x"), _depthwise_field("diffusivity_y")]
    return []


def _depthwise_field(name: str) -> keras.Layer:
    """Return `relu(BatchNorm(depthwise 3x3 conv(h)))`, a field >= 0 of h's shape (N, H, W, C)."""
    return keras.Sequential(
        [
            keras.layers.DepthwiseConv2D(
                3, padding="same", use_bias=False, depthwise_initializer="he_normal", name="conv"
            ),
            batch_norm(name="norm"),
            keras.layers.ReLU(name="relu"),
        ],
        name=name,
    )


def _preactivation_field(channels: int, name: str) -> keras.Layer:
    """Return `conv3x3(relu(BatchNorm(h)))`, a field of either sign and h's shape (N, H, W, C)."""
    return keras.Sequential(
        [batch_norm(name="norm"), keras.layers.ReLU(name="relu"), conv(channels, name="conv")], name=name
    )
