"""How a network is prepared for its training."""

from typing import Any

import keras
import numpy as np
import pytest

from pdeinfer.nn import Classifier
from pdeinfer.presets import PRESETS
from training.fit import compile_model
from training.recipes import RECIPES


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow")
def test_the_step_of_a_training_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, traces = Classifier(PRESETS["mnist-cnn"]), []

    def traced_step(data: Any) -> Any:
        traces.append(data)
        return type(network).train_step(network, data)

    monkeypatch.setattr(network, "train_step", traced_step)
    compile_model(network, RECIPES["mnist-cnn"], steps_per_epoch=3)
    network.fit(np.zeros((12, 28, 28, 1), np.uint8), np.eye(10)[np.arange(12) % 10], batch_size=4, verbose=0)
    assert len(traces) == 1
