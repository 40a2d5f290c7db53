"""Chooses the random weights that a network's training starts with."""

from dataclasses import replace

import numpy as np

from pdeinfer.datasets import Split
from pdeinfer.nn import Classifier
from pdeinfer.spec.presets import Preset
from training.batches import Batches
from training.fit import compile_model, evaluation_data
from training.recipes import Recipe


def choose_start(
    preset: Preset, recipe: Recipe, splits: tuple[Split, Split], *, seed: int
) -> tuple[Classifier, list[float]]:
    """Return a new network with random weights: of `recipe.starts` draws, the one that learns best in one epoch.

    The networks of a single channel need it: with a handful of 3x3 kernels, the draw decides how far the training gets.
    Each draw is trained for an epoch whose learning rate falls from the recipe's peak to 0, and judged by the loss on
    the validation images. The returned weights are the drawn ones.

    Args:
        splits: images to learn from, and validation images.
        seed: of the batches; Keras's own seed decides the draws.

    Returns: the network, and the validation loss of each draw; none where there is one draw alone.
    """
    model = Classifier(preset)
    if recipe.starts == 1:
        return model, []
    candidates = [Classifier(preset) for _ in range(recipe.starts)]
    draws = [candidate.get_weights() for candidate in candidates]
    train, validation = splits
    batches = Batches(train, classes=len(preset.labels), batch_size=recipe.batch_size, seed=seed)
    images, labels, batch_size = evaluation_data(validation, len(preset.labels))
    losses = []
    for candidate in candidates:
        compile_model(candidate, replace(recipe, epochs=1), len(batches))
        candidate.fit(batches, shuffle=False, verbose=0)
        loss, _accuracy = candidate.evaluate(images, labels, batch_size=batch_size, verbose=0)
        losses.append(loss)
    model.set_weights(draws[int(np.nan_to_num(losses, nan=np.inf).argmin())])
    return model, losses
