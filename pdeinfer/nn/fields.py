"""Builds the small networks that compute a PDE layer's velocity, diffusivity, source and start from its input."""

import keras

from pdeinfer.nn.blocks import basic_block_layer, batch_norm, conv
from pdeinfer.spec.pde_spec import LearnedField, PdeSpec, Start

SOFTPLUS_START = -3.0  # of the offset of a softplus field: softplus(-3) = 0.05


def velocity_fields(spec: PdeSpec, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers that make u and v of an input with `channels`: two, or one for both, or none."""
    if spec.velocity is None:
        return []
    if spec.velocity == "preactivation":
        return [_preactivation_field("velocity", channels, _norm(spec, channels, dtype))]
    activation = _activation(spec.velocity_activation, spec.dt, dtype)
    return [
        _learned_field(spec.velocity, name, channels, _norm(spec, channels, dtype), activation) for name in ("u", "v")
    ]


def diffusivity_fields(spec: PdeSpec, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers that make Dx and Dy of an input with `channels`: two, or one for both, or none."""
    if not isinstance(spec.diffusivity, str):
        return []
    activation = _activation(spec.diffusivity_activation, spec.dt, dtype)
    offset = SOFTPLUS_START if spec.diffusivity_activation == "softplus" else 0.0
    names = ("diffusivity",) if spec.isotropic else ("diffusivity_x", "diffusivity_y")
    return [
        _learned_field(spec.diffusivity, name, channels, _norm(spec, channels, dtype, offset), activation)
        for name in names
    ]


def source_layers(spec: PdeSpec, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layer that makes the source f of an input with `channels`, or none if it has no weights."""
    if spec.source is None or spec.source == "input":
        return []
    norm, activation = batch_norm(name="norm", dtype=dtype), _activation("relu", spec.dt, dtype)
    return [_learned_field(spec.source, "source", channels, norm, activation)]


def start_layers(start: Start, channels: int, dtype: keras.DTypePolicy) -> list[keras.Layer]:
    """Return the layers, one after the other, that make the initial state of an input with `channels`."""
    return [basic_block_layer(channels, "start", dtype)] if start == "residual" else []


def _norm(spec: PdeSpec, channels: int, dtype: keras.DTypePolicy, offset: float = 0.0) -> keras.Layer:
    """Return the normalisation of a velocity or diffusivity, which starts with that offset."""
    epsilon = float(channels) if spec.norm_epsilon == "channels" else spec.norm_epsilon
    return batch_norm(epsilon, name="norm", dtype=dtype, beta_initializer=keras.initializers.Constant(offset))


def _learned_field(
    field: LearnedField, name: str, channels: int, norm: keras.Layer, activation: keras.Layer
) -> keras.Layer:
    """Return `activation(norm(g(h)))`, a field of h's shape (N, H, W, C); g as `field` says (see `PdeSpec`)."""
    dtype = norm.dtype_policy
    if field == "residual":
        block = basic_block_layer(channels, "block", dtype)
        return keras.Model(block.input, activation(norm(block.output)), name=name)
    if field == "identity":
        return keras.Sequential([norm, activation], name=name)
    if field == "depthwise":
        convolution = keras.layers.DepthwiseConv2D(
            3, padding="same", use_bias=False, depthwise_initializer="he_normal", name="conv", dtype=dtype
        )
    else:
        convolution = conv(channels, kernel_size=1 if field == "pointwise" else 3, name="conv", dtype=dtype)
    return keras.Sequential([convolution, norm, activation], name=name)


def _activation(name: str, dt: float, dtype: keras.DTypePolicy) -> keras.Layer:
    if name == "relu":
        return keras.layers.ReLU(name=name, dtype=dtype)
    function = {
        "linear": lambda z: z,
        "tanh": lambda z: keras.ops.tanh(2 * dt * z) / (2 * dt),
        "softplus": keras.ops.softplus,
    }[name]
    return keras.layers.Activation(function, name=name, dtype=dtype)


def _preactivation_field(name: str, channels: int, norm: keras.Layer) -> keras.Layer:
    """Return `conv3x3(relu(norm(h)))`, a field of either sign and h's shape (N, H, W, C).

    Its kernel is drawn ten times smaller than He-normal: a random velocity of full size blurs and tears the image over
    the steps, and the network then trains worse.
    """
    slow = keras.initializers.VarianceScaling(scale=0.02, mode="fan_in", distribution="truncated_normal")
    dtype = norm.dtype_policy
    return keras.Sequential(
        [
            norm,
            keras.layers.ReLU(name="relu", dtype=dtype),
            conv(channels, kernel_initializer=slow, name="conv", dtype=dtype),
        ],
        name=name,
    )
