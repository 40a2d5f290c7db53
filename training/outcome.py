"""Measures the network of a finished training, once, and describes how the training went."""

import hashlib
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np

import pdeinfer
from pdeinfer.arrays import Array
from pdeinfer.datasets import Dataset, Split
from pdeinfer.errors import TrainingError
from pdeinfer.nn import count_parameters, count_zero_fields
from pdeinfer.nn.loading import load_classifier
from pdeinfer.spec.training_record import Outcome
from training.batches import EvaluationBatches
from training.checkpoints import RunFolder
from training.fit import EVALUATION_BATCH
from training.history import best_epoch

_SAMPLES = 500


def measure(folder: RunFolder, dataset: Dataset, device: str) -> Outcome:
    """Return the outcome of the training in a folder: what its best network achieves, and how it was trained.

    Args:
        folder: of a finished training.
        dataset: its test images give accuracy, loss and confusion, some of its training images the fields that are
            zero.
        device: a short name of this process's devices. If an earlier process has measured the same network, its device
            and versions are kept: they trained it.

    Raises:
        TrainingError: the training has no finished epoch, or its history is damaged.
        ExportError: the file of its best network is missing or damaged.
    """
    rows = folder.rows()
    if not rows:
        raise TrainingError(
            f"a callback stopped the training in its first epoch, and {folder.path} holds no network: "
            "if its loss was not finite, train again with a lower --lr"
        )
    model = load_classifier(folder.best)
    sha256 = hashlib.sha256(folder.best.read_bytes()).hexdigest()
    versions, earlier = _versions(), folder.outcome()
    if earlier is not None and earlier.model_sha256 == sha256:
        device, versions = earlier.device, dict(earlier.versions)
    confusion, loss = classify_test_images(model, dataset.test)
    best = best_epoch(rows)
    return Outcome(
        model_sha256=sha256,
        validation_accuracy=None if math.isnan(best["val_accuracy"]) else best["val_accuracy"],
        best_epoch=int(best["epoch"]),
        seconds=round(sum(row["seconds"] for row in rows), 1),
        device=device,
        versions=versions,
        parameters=count_parameters(model),
        test_accuracy=float(confusion.trace() / confusion.sum()),
        test_loss=loss if math.isfinite(loss) else None,
        test_images=len(dataset.test),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        zero_fields=count_zero_fields(model, sample(dataset.train)),
    )


def sample(split: Split) -> Array:
    """Return up to 500 images, spread evenly: a folder's are in the order of their classes."""
    return split.images[:: -(-len(split) // _SAMPLES)]


def classify_test_images(model: keras.Model, test: Split) -> tuple[np.ndarray, float]:
    """Classify test images without TF32, as the exported files compute.

    Returns:
        The confusion matrix, int (classes, classes), with true classes as rows and predicted ones as columns, and the
        mean cross-entropy.
    """
    classes = model.output_shape[-1]
    with _without_tf32():
        logits = model.predict(EvaluationBatches(test, classes=classes, batch_size=EVALUATION_BATCH), verbose=0)
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (test.labels, logits.argmax(axis=1)), 1)
    loss = keras.losses.sparse_categorical_crossentropy(test.labels, logits, from_logits=True)
    return confusion, float(np.mean(keras.ops.convert_to_numpy(loss)))


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


def _versions() -> dict[str, str]:
    """Return the versions of the software that the result depends on, by package."""
    backend = keras.backend.backend()
    module = __import__(backend)
    return {
        "python": platform.python_version(),
        "pdeinfer": pdeinfer.__version__,
        "keras": keras.__version__,
        "backend": f"{backend} {module.__version__}",
        "numpy": np.__version__,
    }
