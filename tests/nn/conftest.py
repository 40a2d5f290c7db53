"""Provide random weights that differ from every initial value."""

from collections.abc import Callable

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def randomize() -> Callable[[keras.Layer], None]:
    """Return a function that sets a layer's or network's weights to fixed random values."""

    def assign_random_weights(layer: keras.Layer) -> None:
        # Some seeds make one-channel networks output zero after a relu; this one does not.
        rng = np.random.default_rng(6)
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, weight.shape)
            elif "kernel" in weight.name:
                fan_in = np.prod(weight.shape[:-1])
                value = rng.normal(0, fan_in**-0.5, weight.shape)
            else:
                value = rng.normal(0, 0.1, weight.shape)
            weight.assign(value)

    return assign_random_weights
