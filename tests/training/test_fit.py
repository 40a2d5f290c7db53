"""Preparing, interrupting and measuring a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pdeinfer.datasets import Dataset, Split
from pdeinfer.errors import TrainingError
from pdeinfer.nn import Classifier
from pdeinfer.spec.presets import PRESETS
from training.checkpoints import RunFolder
from training.fit import compile_model, dtype_policy, fit
from training.history import read_history, write_history
from training.outcome import classify_test_images, measure
from training.recipes import RECIPES


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow")
def test_the_training_step_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, traces = Classifier(PRESETS["mnist-cnn"]), []

    def traced_step(data: Any) -> Any:
        traces.append(data)
        return type(network).train_step(network, data)

    monkeypatch.setattr(network, "train_step", traced_step)
    compile_model(network, RECIPES["mnist-cnn"], steps_per_epoch=3)
    network.fit(np.zeros((12, 28, 28, 1), np.uint8), np.eye(10)[np.arange(12) % 10], batch_size=4, verbose=0)
    assert len(traces) == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow")
@pytest.mark.parametrize("allowed", [True, False])
def test_test_images_are_classified_without_tf32(monkeypatch: pytest.MonkeyPatch, *, allowed: bool) -> None:
    import tensorflow as tf

    predict, found = keras.Model.predict, []

    def observed(*arguments: Any, **options: Any) -> Any:
        found.append(tf.config.experimental.tensor_float_32_execution_enabled())
        return predict(*arguments, **options)

    model = Classifier(PRESETS["mnist-cnn"])
    monkeypatch.setattr(keras.Model, "predict", observed)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        confusion, _ = classify_test_images(model, random_split(30))
        assert tf.config.experimental.tensor_float_32_execution_enabled() == allowed
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
    assert found == [False]
    assert confusion.sum() == 30


def test_a_resumed_training_keeps_the_loss_scale_of_mixed_precision(tmp_path: Path) -> None:
    recipe, folder = RECIPES["mnist-cnn"], RunFolder(tmp_path)
    split = random_split(recipe.batch_size)

    def train(network: keras.Model, epochs: int) -> keras.Model:
        fit(network, replace(recipe, epochs=epochs), (split, split), folder, seed=0, callbacks=[])
        return folder.load_last()

    with dtype_policy("mixed_float16"):
        interrupted = train(Classifier(PRESETS["mnist-cnn"]), epochs=1)
        interrupted.optimizer.dynamic_scale.assign(8.0)
        count = len(interrupted.optimizer.variables)
        resumed = train(interrupted, epochs=2)
    assert len(resumed.optimizer.variables) == count
    assert float(resumed.optimizer.dynamic_scale) == 8


def test_a_step_that_mixed_precision_skipped_is_not_repeated(tmp_path: Path) -> None:
    recipe, folder = replace(RECIPES["mnist-cnn"], epochs=2), RunFolder(tmp_path)
    split = random_split(recipe.batch_size)
    with dtype_policy("mixed_float16"):
        network = Classifier(PRESETS["mnist-cnn"])
        compile_model(network, recipe, steps_per_epoch=1)
        network.optimizer.dynamic_scale.assign(2.0**30)  # overflows: the optimizer counts no step
        fit(network, recipe, (split, split), folder, seed=0, callbacks=[])
        finished = folder.load_last()
        assert int(finished.optimizer.iterations) < 2
        history = folder.history.read_text()
        fit(finished, recipe, (split, split), folder, seed=0, callbacks=[])
    assert folder.history.read_text() == history


def test_the_best_network_is_of_an_epoch_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, folder = replace(RECIPES["mnist-cnn"], epochs=1), RunFolder(tmp_path)
    split = random_split(recipe.batch_size)

    def train(network: keras.Model) -> None:
        fit(network, recipe, (split, split), folder, seed=0, callbacks=[])

    with monkeypatch.context() as interrupted:
        interrupted.setattr(RunFolder, "keep_if_best", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(Classifier(PRESETS["mnist-cnn"]))
    assert not folder.best.exists()
    train(folder.load_last())
    assert folder.best.read_bytes() == folder.checkpoint(1).read_bytes()


def test_the_row_of_an_epoch_that_does_not_count_is_removed(tmp_path: Path) -> None:
    recipe, folder = replace(RECIPES["mnist-cnn"], epochs=1), RunFolder(tmp_path)
    split = random_split(recipe.batch_size)
    fit(Classifier(PRESETS["mnist-cnn"]), recipe, (split, split), folder, seed=0, callbacks=[])
    rows = folder.rows()
    write_history(folder.history, [*rows, {**rows[0], "epoch": 2.0, "val_accuracy": 1.0}])  # then it was killed
    assert measure(folder, Dataset(split, split), "cpu").best_epoch == 1
    fit(folder.load_last(), recipe, (split, split), folder, seed=0, callbacks=[])
    assert read_history(folder.history) == rows


@pytest.mark.parametrize("whole", [0, 1])
def test_an_epoch_that_a_callback_cut_off_does_not_count(whole: int, tmp_path: Path) -> None:
    recipe, folder = replace(RECIPES["mnist-cnn"], epochs=2, batch_size=4), RunFolder(tmp_path)
    split = random_split(12)

    class StopWithinEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            del logs
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            del logs
            if (self.epoch, batch) == (whole, 1):  # the second of three batches
                self.model.stop_training = True

    network = Classifier(PRESETS["mnist-cnn"])
    fit(network, recipe, (split, split), folder, seed=0, callbacks=[StopWithinEpoch()])
    assert [row["epoch"] for row in folder.rows()] == [1.0][:whole]
    assert folder.epochs() == [1][:whole]
    if not whole:
        with pytest.raises(TrainingError, match="first epoch"):
            measure(folder, Dataset(split, split), "cpu")
        return
    fit(folder.load_last(), recipe, (split, split), folder, seed=0, callbacks=[])
    assert [row["epoch"] for row in folder.rows()] == [1, 2]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def random_split(count: int) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)
    return Split(images, np.arange(count) % 10)
