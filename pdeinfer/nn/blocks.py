"""The convolution, normalisation and residual block that every network here is made of."""

import keras


def conv(channels: int, kernel_size: int = 3, strides: int = 1, **kwargs: object) -> keras.Layer:
    """Return a `kernel_size` x `kernel_size` convolution with zero 'same' padding, He-normal, without bias."""
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        **kwargs,
    )


def batch_norm(**kwargs: object) -> keras.Layer:
    """Return a batch normalisation with the paper's momentum (0.9 in Keras's sense) and epsilon (1e-5)."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **kwargs)


def basic_block(h: keras.KerasTensor, channels: int, strides: int = 1) -> keras.KerasTensor:
    """Return `relu(BN(conv(relu(BN(conv(h))))) + shortcut)`, (N, H, W, C) -> (N, H/strides, W/strides, channels).

    The shortcut is h itself, or `BN(conv1x1(h))` where the shape changes. Source: He et al., "Deep Residual Learning
    for Image Recognition", CVPR 2016, figure 2.
    """
    residual = batch_norm()(conv(channels, strides=strides)(h))
    residual = batch_norm()(conv(channels)(keras.layers.ReLU()(residual)))
    if strides != 1 or h.shape[-1] != channels:
        h = batch_norm()(conv(channels, kernel_size=1, strides=strides)(h))
    return keras.layers.ReLU()(keras.layers.Add()([residual, h]))
