"""Muon updates the kernel of a convolution as a matrix, and leaves everything else to Adam."""

import keras
import numpy as np

from training.muon import ConvMuon


def updated(optimizer: keras.optimizers.Optimizer, value: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Return a variable after a step for each gradient."""
    variable = keras.Variable(value)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return keras.ops.convert_to_numpy(variable)


def test_a_kernel_is_updated_like_its_matrix_by_keras() -> None:
    rng = np.random.default_rng(0)
    kernel, *gradients = rng.normal(size=(4, 3, 3, 4, 5)).astype(np.float32)
    matrices = [gradient.reshape(36, 5) for gradient in gradients]
    settings = {"learning_rate": 0.01, "weight_decay": 0.05}

    result = updated(ConvMuon(**settings), kernel, gradients)

    expected = updated(keras.optimizers.Muon(**settings), kernel.reshape(36, 5), matrices)
    np.testing.assert_allclose(result.reshape(36, 5), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(result - kernel).max() > 1e-3


def test_a_depthwise_kernel_is_left_to_adam() -> None:
    rng = np.random.default_rng(0)
    kernel, *gradients = rng.normal(size=(4, 3, 3, 4, 1)).astype(np.float32)

    result = updated(ConvMuon(0.01, adam_weight_decay=None), kernel, gradients)

    expected = updated(keras.optimizers.Adam(0.01), kernel, gradients)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_weight_decay_applies_to_kernels_alone() -> None:
    for shape, is_decayed in (((3, 3, 4, 5), True), ((3, 3, 4, 1), True), ((4, 5), True), ((5,), False)):
        value, gradient = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        optimizer = ConvMuon(0.01, weight_decay=0.5, adam_weight_decay=0.5)
        restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        for each in (optimizer, restored):
            assert (updated(each, value, [gradient]) < value).all() == is_decayed


def test_a_saved_optimizer_resumes_unchanged() -> None:
    optimizer = ConvMuon(0.01, weight_decay=0.05, exclude_layers=["logits"])
    restored = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(restored, ConvMuon)
    assert restored.get_config() == optimizer.get_config()
    kernel, gradient = np.random.default_rng(0).normal(size=(2, 3, 3, 4, 5)).astype(np.float32)
    expected = updated(optimizer, kernel, [gradient])
    np.testing.assert_allclose(updated(restored, kernel, [gradient]), expected, rtol=1e-6)
