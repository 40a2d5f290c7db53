"""The batch normalisation trains as Keras's own does."""

import keras
import numpy as np
import pytest

from pdeinfer.nn.normalization import BatchNormalization

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused kernel is TensorFlow's")


def train_once(norm: keras.layers.BatchNormalization, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the layer's output, its gradients of a weighted sum and its weights, after one call in training."""
    import tensorflow as tf

    inputs = tf.constant(x)
    norm.build(x.shape)
    norm.gamma.assign(np.linspace(0.5, 2, x.shape[-1]))
    norm.beta.assign(np.linspace(-1, 1, x.shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = norm(inputs, training=True)
        weights = tf.cast(np.cos(np.arange(x.size)).reshape(x.shape), tf.bfloat16)  # in all precisions the same
        total = tf.reduce_sum(tf.cast(output, tf.float32) * tf.cast(weights, tf.float32))
    gradients = tape.gradient(total, [inputs, norm.gamma.value, norm.beta.value])
    named = zip(("dx", "dgamma", "dbeta"), gradients, strict=True)
    return {
        "output": output.numpy(),
        **{name: gradient.numpy() for name, gradient in named},
        "moving_mean": norm.moving_mean.numpy(),
        "moving_variance": norm.moving_variance.numpy(),
    }


@pytest.mark.parametrize(
    "shape", [(8, 5, 7, 16), (2, 1, 1, 3), (1, 1, 1, 2), (16, 28, 28, 1), (16, 28, 28, 4)], ids=str
)
def test_output_gradients_and_moving_statistics_in_training_equal_those_of_keras(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    settings = {"momentum": 0.9, "epsilon": 1e-5}
    actual = train_once(BatchNormalization(**settings), x)
    expected = train_once(keras.layers.BatchNormalization(**settings), x)
    for name, value in expected.items():
        # measured: up to 3.4e-5, of a gradient over two values
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-4, err_msg=name)


def test_in_bfloat16_the_kernel_rounds_what_it_computes_in_float32() -> None:
    import tensorflow as tf

    x = tf.cast(np.random.default_rng(0).normal(3, 2, (8, 5, 7, 16)), tf.bfloat16).numpy()
    settings = {"momentum": 0.9, "epsilon": 1e-5}
    actual = train_once(BatchNormalization(**settings, dtype="mixed_bfloat16"), x)
    expected = train_once(keras.layers.BatchNormalization(**settings), x.astype(np.float32))
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name].astype(np.float32), value, rtol=2**-8, atol=0.01, err_msg=name)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_training_on_several_channels_runs_the_fused_kernel(precision: str) -> None:
    import tensorflow as tf

    norm = BatchNormalization(dtype=precision)
    inputs = tf.TensorSpec((4, 8, 8, 16), norm.compute_dtype)
    step = tf.function(lambda x: norm(x, training=True)).get_concrete_function(inputs)
    assert "FusedBatchNormV3" in {operation.type for operation in step.graph.get_operations()}


def test_inference_equals_that_of_keras() -> None:
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 8)).astype(np.float32)
    actual, expected = BatchNormalization(), keras.layers.BatchNormalization()
    for norm in (actual, expected):
        norm.build(x.shape)
        norm.moving_mean.assign(np.arange(8))
        norm.moving_variance.assign(np.arange(1, 9))
    np.testing.assert_array_equal(actual(x, training=False), expected(x, training=False))
