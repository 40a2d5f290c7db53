"""The convolution, normalisation and residual block that every network here is made of."""

from typing import Any

import keras

from pdeinfer.nn.normalization import BatchNormalization


def conv(
    channels: int, kernel_size: int = 3, strides: int = 1, kernel_initializer: Any = "he_normal", **kwargs: Any
) -> keras.Layer:
    """Return a `kernel_size` x `kernel_size` convolution with zero 'same' padding, without bias."""
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer=kernel_initializer,
        **kwargs,
    )


def batch_norm(**kwargs: Any) -> keras.Layer:
    """Return a batch normalisation with the paper's momentum (0.9 in Keras's sense) and epsilon (1e-5)."""
    return BatchNormalization(momentum=0.9, epsilon=1e-5, **kwargs)


def basic_block(h: keras.KerasTensor, channels: int, strides: int = 1, **kwargs: Any) -> keras.KerasTensor:
    """Return `relu(BN(conv(relu(BN(conv(h))))) + shortcut)`, (N, H, W, C) -> (N, H/strides, W/strides, channels).

    The shortcut is h itself, or `BN(conv1x1(h))` where the shape changes. Source: He et al., "Deep Residual Learning
    for Image Recognition", CVPR 2016, figure 2.
    """
    residual = batch_norm(**kwargs)(conv(channels, strides=strides, **kwargs)(h))
    residual = batch_norm(**kwargs)(conv(channels, **kwargs)(keras.layers.ReLU(**kwargs)(residual)))
    if strides != 1 or h.shape[-1] != channels:
        h = batch_norm(**kwargs)(conv(channels, kernel_size=1, strides=strides, **kwargs)(h))
    return keras.layers.ReLU(**kwargs)(keras.layers.Add(**kwargs)([residual, h]))


def basic_block_layer(channels: int, name: str, dtype: keras.DTypePolicy) -> keras.Layer:
    """Return a basic block of equal width as one layer, (N, H, W, channels) -> (N, H, W, channels)."""
    h = keras.Input((None, None, channels), dtype=dtype.compute_dtype)
    return keras.Model(h, basic_block(h, channels, dtype=dtype), name=name)
