"""Provide saved networks and a training's folder, and take one training step."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def randomize(classifier: Any, seed: int = 0) -> None:
    """Set every weight to a plausible trained value.

    Batch normalisations take their statistics from the images of the parity check, and velocities stay small.
    Otherwise activations, and rounding errors with them, would grow with every step of every PDE layer.
    """
    import keras
    import numpy as np

    from pdeinfer.checks.parity import synthetic_images

    rng = np.random.default_rng(seed)
    for variable in classifier.trainable_variables:
        if variable.name == "gamma":
            slow = 0.1 if {"u", "v"} & set(variable.path.split("/")) else 1.0
            variable.assign(slow * rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias"):
            variable.assign(rng.normal(0, 0.3, variable.shape))
    for layer in classifier._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the next batch sets its statistics
    images = synthetic_images(*classifier.input_shape[1:])
    classifier(np.concatenate([batch[:16] for batch in images.values()]), training=True)


def train_a_step(classifier: Any, count: int = 32) -> tuple[float, list[str]]:
    """Take the first step of the preset's recipe; return the loss and the paths of the weights that did not change.

    The batch holds `count` images of the parity check with arbitrary labels.
    """
    import numpy as np

    from pdeinfer.checks.parity import synthetic_images
    from pdeinfer.datasets import Split
    from pdeinfer.nn import step_gradient
    from training.batches import Augmentation, Batches
    from training.fit import compile_model
    from training.recipes import RECIPES

    recipe = RECIPES[classifier.preset.name]
    images = np.concatenate([batch[:16] for batch in synthetic_images(*classifier.input_shape[1:]).values()])
    split = Split(images, np.arange(len(images)) % classifier.output_shape[-1])
    batches = Batches(
        split,
        classes=classifier.output_shape[-1],
        batch_size=count,
        seed=0,
        augmentation=Augmentation(recipe.crop_padding, recipe.flip, recipe.mixup),
    )
    before = [variable.numpy() for variable in classifier.trainable_variables]
    compile_model(classifier, recipe, steps_per_epoch=100)
    classifier.run_eagerly = True  # for one step, compiling costs more than it saves
    with mock.patch.object(step_gradient, "is_faster", return_value=False):
        loss, _ = classifier.train_on_batch(*batches[0])
    after = classifier.trainable_variables
    still = [
        variable.path for variable, old in zip(after, before, strict=True) if np.array_equal(variable.numpy(), old)
    ]
    return float(loss), still


@pytest.fixture(scope="session")
def saved_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a preset's network with random weights as a .keras file, once per preset."""

    @cache
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


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the training of the bundled digits-pde. Tests must not change it."""
    from pdeinfer.package import zoo
    from pdeinfer.package.package import KERAS_FILE

    folder = tmp_path_factory.mktemp("run")
    package = zoo.load("digits-pde")
    shutil.copyfile(package.path / KERAS_FILE, folder / KERAS_FILE)
    (folder / "run.json").write_text(json.dumps(package.card.training))
    return folder
