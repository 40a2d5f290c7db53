"""Trains a network by its recipe, resumably."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from pdeinfer.datasets import Dataset, Split, hold_out
from pdeinfer.errors import TrainingError
from training.batches import Augmentation, Batches, EvaluationBatches
from training.checkpoints import Checkpoint, RunFolder
from training.devices import count_replicas
from training.distillation import DistillationLoss, Teacher, accuracy
from training.history import has_stagnated, write_history
from training.interruption import interrupted_between_batches
from training.recipes import Recipe
from training.stopping import StopEarly

EVALUATION_BATCH = 500


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
    """Train for `recipe.epochs` epochs, or for the remaining ones.

    After every epoch the folder holds the history, the last network with its optimizer, and the network of the best
    validation accuracy; without validation images, the last one.

    Args:
        model: a new `Classifier`, or the folder's last checkpoint.
        splits: training and validation images; see `training_splits`.
        seed: of shuffling and augmentation.
        teacher: to distil, by the recipe's temperature and weight.

    Raises:
        TrainingError: the checkpoint does not match the history, or there are fewer validation images than devices.
    """
    train, validation = splits
    rows = folder.rows()
    steps = len(train) // recipe.batch_size
    if model.compiled:
        _create_variables(model)
    else:
        compile_model(model, recipe, steps)
    if rows:
        write_history(folder.history, rows)  # without the row of an epoch that has no checkpoint
        folder.keep_if_best(rows)  # an interruption may have come just before
    classes = model.output_shape[-1]
    if has_stagnated(rows, recipe.patience):
        return
    batches = Batches(
        train,
        classes=classes,
        batch_size=recipe.batch_size,
        seed=seed,
        augmentation=Augmentation(recipe.crop_padding, recipe.flip, recipe.mixup),
        balance=recipe.balance,
        teacher=teacher,
    )
    with interrupted_between_batches() as stop:
        model.fit(
            batches,
            epochs=recipe.epochs,
            initial_epoch=len(rows),
            shuffle=False,  # Batches shuffles
            validation_data=evaluation_batches(validation, classes) if len(validation) else None,
            callbacks=[
                stop,
                EpochFacts(batches),
                Checkpoint(folder, rows),
                StopEarly(rows, recipe.patience),
                *callbacks,
            ],
            verbose=0 if sys.stdout.isatty() else 2,  # people see `Progress`, logs have a line an epoch
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


def evaluation_batches(split: Split, classes: int) -> EvaluationBatches:
    """Return batches to evaluate with.

    With several devices, the last few images may be left out: Keras can only evaluate what divides evenly.

    Raises:
        TrainingError: there are fewer images than devices.
    """
    replicas = count_replicas()
    if len(split) < replicas:
        raise TrainingError(f"expected at least {replicas} validation images, one per device, got {len(split)}")
    chosen = slice(len(split) // replicas * replicas)
    batch_size = EVALUATION_BATCH // replicas * replicas
    return EvaluationBatches(Split(split.images[chosen], split.labels[chosen]), classes=classes, batch_size=batch_size)


def training_splits(dataset: Dataset, recipe: Recipe) -> tuple[Split, Split]:
    """Return the training images and the validation images, which choose the best epoch.

    If the recipe's `validation_fraction` is 0, there are no validation images, and the last epoch is kept.

    Raises:
        TrainingError: there are too few images, or no validation images for a recipe that judges by them.
    """
    if dataset.validation is not None:
        train, validation = dataset.train, dataset.validation
    elif recipe.validation_fraction == 0:
        train, validation = dataset.train, Split(dataset.train.images[:0], dataset.train.labels[:0])
    else:
        train, validation = hold_out(dataset.train, recipe.validation_fraction)
    if len(validation) == 0 and recipe.validation_fraction > 0:
        raise TrainingError("expected a class with two training images, to hold one out for validation")
    if recipe.patience is not None and not len(validation):
        raise TrainingError("--patience needs validation images, and this recipe trains on all images")
    if recipe.initializations > 1 and not len(validation):
        raise TrainingError(
            f"this recipe tries {recipe.initializations} initial weights and needs validation images to choose: "
            "expected --validation-fraction above 0"
        )
    if len(train) < recipe.batch_size:
        raise TrainingError(
            f"a batch of {recipe.batch_size} is larger than the {len(train)} training images: lower --batch-size"
        )
    return train, validation


class EpochFacts(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Tell the batches which epoch begins, and log its learning rate and its seconds, validation included."""

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


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Use a Keras dtype policy ("float32", "mixed_bfloat16", "mixed_float16") for layers made inside the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
