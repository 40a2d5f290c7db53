"""How a network is prepared for its training, and for the rest of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pdeinfer.datasets import Split
from pdeinfer.nn import Classifier
from pdeinfer.presets import PRESETS
from training.checkpoints import RunFolder
from training.fit import compile_model, fit, precision
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


def test_a_resumed_training_keeps_the_loss_scale_of_half_precision(tmp_path: Path) -> None:
    recipe, folder = RECIPES["mnist-cnn"], RunFolder(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (recipe.batch_size, 28, 28, 1), np.uint8)
    split = Split(images, np.arange(recipe.batch_size) % 10)

    def train(network: keras.Model, epochs: int) -> keras.Model:
        fit(network, replace(recipe, epochs=epochs), (split, split), folder, seed=0, verbose=0, callbacks=[])
        return keras.saving.load_model(folder.last)

    with precision("mixed_float16"):
        interrupted = train(Classifier(PRESETS["mnist-cnn"]), epochs=1)
        interrupted.optimizer.dynamic_scale.assign(8.0)
        count = len(interrupted.optimizer.variables)
        resumed = train(interrupted, epochs=2)
    assert len(resumed.optimizer.variables) == count
    assert float(resumed.optimizer.dynamic_scale) == 8
