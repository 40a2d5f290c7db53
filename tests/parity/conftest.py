"""Networks with random weights, saved as a training saves them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def randomize(classifier: Any, seed: int = 0) -> None:
    """Give every weight, the statistics of the batch normalisations too, a value that a training might have."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for variable in classifier.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.3, variable.shape))


@pytest.fixture(scope="session")
def saved_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a network of a preset with random weights as a .keras file."""

    def save(preset: Any) -> Path:
        import keras

        from pdeinfer.nn import Classifier

        keras.utils.set_random_seed(1)
        classifier = Classifier(preset)
        randomize(classifier)
        path = tmp_path_factory.mktemp("networks") / f"{preset.name}.keras"
        classifier.save(path)
        return path

    return save
