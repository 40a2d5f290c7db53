"""Evaluates saved networks in a process of their own: `python evaluate.py FOLDER RESULTS`, on Keras's chosen backend.

For each `NAME.keras` in FOLDER, with images and labels in `NAME.npz`, writes the logits to `RESULTS/NAME.npz`, and for
a name in `TRAINED` all weights after one step of training, `weight0` onwards.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import pdeinfer.nn  # noqa: F401 - registers the classes that the files name

TRAINED = ("digits-pde", "mnist-pde", "perona-malik", "residual-blocks")


def train_one_step(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # One step is cheaper run eagerly than compiled.
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    model.train_on_batch(images, labels)


def main(folder: Path, results: Path) -> None:
    for path in sorted(folder.glob("*.keras")):
        with np.load(path.with_suffix(".npz")) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        model = keras.saving.load_model(path)  # safe mode is the default
        found = {"logits": keras.ops.convert_to_numpy(model(images))}
        if path.stem in TRAINED:
            train_one_step(model, images, labels)
            found |= {f"weight{i}": keras.ops.convert_to_numpy(weight) for i, weight in enumerate(model.weights)}
        np.savez(results / f"{path.stem}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
