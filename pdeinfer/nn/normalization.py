"""Batch normalisation that trains with TensorFlow's fused kernel, and normalises over all devices together."""

from typing import Any

import keras


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras is untyped
    """Keras's batch normalisation over (N, H, W, C), quicker to train on TensorFlow.

    Keras composes the normalisation and its gradient from some twenty elementwise operations; TensorFlow has a fused
    kernel for each of the two (times: docs/lab/training-speed.md). The result is the same within rounding. In bfloat16
    the kernel computes in float32 and rounds its output. With one channel, where the kernels are slower, with other
    backends, in float16, in bfloat16 on a GPU, and for inference, this is Keras's layer. The same holds under a
    `tf.distribute` strategy of several devices, where the statistics are those of the whole batch, not of one device's
    part.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"synchronized": _has_several_replicas(), **kwargs})

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.synchronized or not (training and self.trainable and _has_fused_kernel(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
        )
        # The kernel returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance * (1 - 1 / count))):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return output


def _has_several_replicas() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync) > 1


def _has_fused_kernel(inputs: Any) -> bool:
    if keras.backend.backend() != "tensorflow" or isinstance(inputs, keras.KerasTensor):
        return False
    import tensorflow as tf

    precisions = ("float32",) if tf.config.list_physical_devices("GPU") else ("float32", "bfloat16")
    return inputs.dtype in precisions and len(inputs.shape) == 4 and inputs.shape[-1] > 1
