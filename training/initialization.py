"""Chooses the random weights that a training starts from."""

from dataclasses import replace

import numpy as np

from pdeinfer.datasets import Split
from pdeinfer.nn import Classifier
from pdeinfer.spec.presets import Preset
from training.batches import Batches
from training.fit import compile_model, evaluation_batches
from training.interruption import interrupted_between_batches
from training.recipes import Recipe


def initialize(
    preset: Preset, recipe: Recipe, splits: tuple[Split, Split], *, seed: int
) -> tuple[Classifier, list[float]]:
    """Return a new network with the best of `recipe.initializations` random initial weights.

    The networks of a single channel need it: with a handful of 3x3 kernels, the initial weights decide how far the
    training gets. Each candidate is trained for one epoch, with a learning rate that falls from the recipe's peak to 0,
    and judged by its loss on the validation images. The returned network has the candidate's untrained weights.

    Args:
        splits: training and validation images.
        seed: of the batches; Keras's own seed decides the weights.

    Returns: the network, and the validation loss of each candidate; no losses where there is only one.

    Raises:
        TrainingError: there are fewer validation images than devices.
    """
    model = Classifier(preset)
    if recipe.initializations == 1:
        return model, []
    candidates = [Classifier(preset) for _ in range(recipe.initializations)]
    initial_weights = [candidate.get_weights() for candidate in candidates]
    train, validation = splits
    batches = Batches(train, classes=len(preset.labels), batch_size=recipe.batch_size, seed=seed)
    validation_batches = evaluation_batches(validation, len(preset.labels))
    losses = []
    with interrupted_between_batches() as stop:
        for candidate in candidates:
            compile_model(candidate, replace(recipe, epochs=1), len(batches))
            candidate.fit(batches, shuffle=False, verbose=0, callbacks=[stop])
            loss, _accuracy = candidate.evaluate(validation_batches, verbose=0, callbacks=[stop])
            losses.append(loss)
    model.set_weights(initial_weights[int(np.nan_to_num(losses, nan=np.inf).argmin())])
    return model, losses
