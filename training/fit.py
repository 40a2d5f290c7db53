"""Trains a network by its recipe, resumably, and measures it once on the test images."""

import hashlib
import math
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

import pdeinfer
from pdeinfer.datasets import Dataset, Split, hold_out
from pdeinfer.errors import TrainingError
from pdeinfer.nn import count_parameters, count_zero_fields
from training.batches import Augmentation, Batches
from training.checkpoints import Checkpoint, RunFolder
from training.devices import count_replicas
from training.distillation import DistillationLoss, Teacher, accuracy
from training.history import best_epoch, read_history
from training.interruption import interrupted_between_batches
from training.recipes import Recipe

_EVALUATION_BATCH = 500


def fit(
    model: keras.Model,
    recipe: Recipe,
    splits: tuple[Split, Split],
    folder: RunFolder,
    *,
    seed: int,
    callbacks: list[keras.callbacks.Callback],
    teacher: Teacher | None = None,
) -> None:
    """Train for `recipe.epochs` epochs, or for those that are left.

    After every epoch the folder holds the history, the last network with its optimizer, and the network of the best
    validation accuracy; without validation images, the last one.

    Args:
        model: a new `Classifier`, or the folder's last checkpoint.
        splits: training and validation images; see `training_splits`.
        seed: of shuffling and augmentation.
        teacher: to distil, by the recipe's temperature and weight.

    Raises:
        TrainingError: the checkpoint does not match the history beside it.
    """
    train, validation = splits
    rows = folder.rows()
    steps = len(train) // recipe.batch_size
    if model.compiled:
        _create_variables(model)
    else:
        compile_model(model, recipe, steps)
    if rows:
        folder.keep_if_best(rows)  # an interruption may have come just before
    classes = model.output_shape[-1]
    validated: dict[str, Any] = {}
    if len(validation):
        images, labels, evaluation_batch = evaluation_data(validation, classes)
        validated = {"validation_data": (images, labels), "validation_batch_size": evaluation_batch}
    batches = Batches(
        train,
        classes=classes,
        batch_size=recipe.batch_size,
        seed=seed,
        augmentation=Augmentation(recipe.crop_padding, recipe.flip, recipe.mixup),
        teacher=teacher,
    )
    with interrupted_between_batches() as stop:
        model.fit(
            batches,
            epochs=recipe.epochs,
            initial_epoch=len(rows),
            shuffle=False,  # Batches shuffles
            **validated,
            callbacks=[stop, EpochFacts(batches), Checkpoint(folder, rows), *callbacks],
            verbose=1 if sys.stdout.isatty() else 2,  # a bar for people, a line an epoch for logs
        )


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> None:
    """Give a network its optimizer and loss."""
    model.compile(
        optimizer=recipe.make_optimizer(steps_per_epoch),
        loss=DistillationLoss(recipe.temperature, recipe.distillation_weight),
        metrics=[accuracy],
    )
    _create_variables(model)


def _create_variables(model: keras.Model) -> None:
    """Create the variables of optimizer and metrics. Otherwise TensorFlow traces the first step twice."""
    if not model.optimizer.built:  # a second build would reset the loss scale of mixed_float16
        model.optimizer.build(model.trainable_variables)
    labels = np.eye(model.output_shape[-1], dtype=np.float32)
    model.compute_metrics(x=None, y=labels, y_pred=labels)
    model.reset_metrics()


def evaluation_data(split: Split, classes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return images, one-hot labels and a batch size to evaluate with.

    With several devices, the last few images may be left out: Keras can only evaluate what divides evenly.

    Raises:
        TrainingError: there are fewer images than devices.
    """
    replicas = count_replicas()
    if len(split) < replicas:
        raise TrainingError(f"expected at least {replicas} validation images, one per device, got {len(split)}")
    chosen = slice(len(split) // replicas * replicas)
    labels = np.eye(classes, dtype=np.float32)[split.labels[chosen]]
    return split.images[chosen], labels, _EVALUATION_BATCH // replicas * replicas


def training_splits(dataset: Dataset, recipe: Recipe) -> tuple[Split, Split]:
    """Return the training images and the validation images, which choose the best epoch.

    If the recipe's `validation_fraction` is 0, there are no validation images, and the last epoch is kept.

    Raises:
        TrainingError: there are too few images.
    """
    if dataset.validation is not None:
        train, validation = dataset.train, dataset.validation
    elif recipe.validation_fraction == 0:
        train, validation = dataset.train, Split(dataset.train.images[:0], dataset.train.labels[:0])
    else:
        train, validation = hold_out(dataset.train, recipe.validation_fraction)
    if len(validation) == 0 and recipe.validation_fraction > 0:
        raise TrainingError("expected a class with two training images, to hold one out for validation")
    if len(train) < recipe.batch_size:
        raise TrainingError(f"a batch of {recipe.batch_size} is larger than the {len(train)} training images")
    return train, validation


class EpochFacts(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Tell the batches the epoch, and the callbacks that follow its learning rate and seconds, with validation."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del logs
        self.batches.epoch = epoch
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        del epoch
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["seconds"] = round(time.perf_counter() - self.started, 2)


def measure(folder: RunFolder, dataset: Dataset) -> dict[str, Any]:
    """Measure the folder's best network without TF32.

    On the test images: accuracy, loss and confusion matrix. On training images: the fields that are zero.
    """
    model = keras.saving.load_model(folder.best, compile=False)
    test = dataset.test
    with _without_tf32():  # as the exported files compute
        logits = model.predict(test.images, batch_size=_EVALUATION_BATCH, verbose=0)
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), dtype=int)  # rows: true class, columns: predicted
    np.add.at(confusion, (test.labels, logits.argmax(axis=1)), 1)
    loss = keras.losses.sparse_categorical_crossentropy(test.labels, logits, from_logits=True)
    return {
        "test_accuracy": float(confusion.trace() / confusion.sum()),
        "test_loss": float(np.mean(keras.ops.convert_to_numpy(loss))),
        "test_images": len(test),
        "confusion": confusion.tolist(),
        "parameters": count_parameters(model),
        "zero_fields": count_zero_fields(model, dataset.train.images[:_EVALUATION_BATCH]),
    }


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Turn off TF32, which has 11 bits and is the default on recent GPUs, inside the block."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("float32"):  # convolutions too
            yield
        return
    if backend == "torch":
        import torch

        before = torch.backends.cudnn.allow_tf32
        switch = partial(setattr, torch.backends.cudnn, "allow_tf32")
    else:
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        switch = tf.config.experimental.enable_tensor_float_32_execution
    switch(False)
    try:
        yield
    finally:
        switch(before)


def describe_run(folder: RunFolder) -> dict[str, Any]:
    """Return the best epoch, the time and the versions of a finished training."""
    rows = read_history(folder.history)
    best = best_epoch(rows)
    validated = {} if math.isnan(best["val_accuracy"]) else {"validation_accuracy": best["val_accuracy"]}
    return {
        "model_sha256": hashlib.sha256(folder.best.read_bytes()).hexdigest(),
        **validated,
        "best_epoch": int(best["epoch"]),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the software that the result depends on."""
    backend = keras.backend.backend()
    module = __import__(backend)
    return {
        "python": platform.python_version(),
        "pdeinfer": pdeinfer.__version__,
        "keras": keras.__version__,
        "backend": f"{backend} {module.__version__}",
        "numpy": np.__version__,
    }


def git_commit() -> str | None:
    """Return the commit of this code, with "-dirty" if a file has changed since; None outside a repository."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # fixed arguments
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # may be installed inside another project
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Use a Keras dtype policy ("float32", "mixed_bfloat16", "mixed_float16") for layers made inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
