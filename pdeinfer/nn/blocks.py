"""The convolution, normalisation and residual block that all networks are built from."""

from typing import Any

import keras

from pdeinfer.nn.normalization import BatchNormalization
from pdeinfer.spec.networks import StridedPadding


def conv(
    channels: int,
    kernel_size: int = 3,
    strides: int = 1,
    kernel_initializer: Any = "he_normal",
    padding: str = "same",
    **kwargs: Any,
) -> keras.Layer:
    """Return a `kernel_size` x `kernel_size` convolution without bias, with zero 'same' padding by default."""
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=kernel_initializer,
        **kwargs,
    )


def batch_norm(epsilon: float = 1e-5, **kwargs: Any) -> keras.Layer:
    """Return a batch normalisation with the paper's momentum, 0.9 in Keras's sense."""
    return BatchNormalization(momentum=0.9, epsilon=epsilon, **kwargs)


def basic_block(
    h: keras.KerasTensor, channels: int, strides: int = 1, strided_padding: StridedPadding = "same", **kwargs: Any
) -> keras.KerasTensor:
    """Return `relu(BN(conv(relu(BN(conv(h))))) + shortcut)`, (N, H, W, C) -> (N, H/strides, W/strides, channels).

    The shortcut is h itself, or `BN(conv1x1(h))` where the shape changes. `strided_padding` is that of the first
    convolution where `strides` is not 1. Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
    figure 2.
    """
    if strides != 1 and strided_padding == "symmetric":
        padded = keras.layers.ZeroPadding2D(1, **kwargs)(h)
        residual = conv(channels, strides=strides, padding="valid", **kwargs)(padded)
    else:
        residual = conv(channels, strides=strides, **kwargs)(h)
    residual = batch_norm(**kwargs)(residual)
    residual = batch_norm(**kwargs)(conv(channels, **kwargs)(keras.layers.ReLU(**kwargs)(residual)))
    if strides != 1 or h.shape[-1] != channels:
        h = batch_norm(**kwargs)(conv(channels, kernel_size=1, strides=strides, **kwargs)(h))
    return keras.layers.ReLU(**kwargs)(keras.layers.Add(**kwargs)([residual, h]))


def basic_block_layer(channels: int, name: str, dtype: keras.DTypePolicy) -> keras.Layer:
    """Return a basic block of equal width as one layer, (N, H, W, channels) -> (N, H, W, channels)."""
    h = keras.Input((None, None, channels), dtype=dtype.compute_dtype)
    return keras.Model(h, basic_block(h, channels, dtype=dtype), name=name)


def depthwise_convolution(h: keras.KerasTensor, kernel_size: int) -> keras.KerasTensor:
    """Return `relu(BN(conv(h)))` with a depthwise convolution, (N, H, W, C) -> (N, H, W, C)."""
    h = keras.layers.DepthwiseConv2D(kernel_size, padding="same", use_bias=False, depthwise_initializer="he_normal")(h)
    return keras.layers.ReLU()(batch_norm()(h))


def depthwise_sum(h: keras.KerasTensor, kernel_size: int, num_terms: int) -> keras.KerasTensor:
    """Return `relu(BN(sum))` over `num_terms` terms `relu(BN(conv(h)))`, each as in `depthwise_convolution`."""
    total = keras.layers.Add()([depthwise_convolution(h, kernel_size) for _ in range(num_terms)])
    return keras.layers.ReLU()(batch_norm()(total))
