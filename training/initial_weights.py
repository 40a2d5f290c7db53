"""Weights of a trained model, taken over by a network that is yet to be trained."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pdeinfer.errors import TrainingError
from pdeinfer.export.original import load_classifier
from pdeinfer.nn import Classifier
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import Network, Preset, ResidualNetwork


@dataclass(frozen=True)
class Inheritance:
    """What a network took over from another one.

    Attributes:
        model: the other one's name.
        taken: how many of the `total` weights, the statistics of the normalisations among them.
        anew: the names of the layers that have random weights still, all or some.
    """

    model: str
    taken: int
    total: int
    anew: tuple[str, ...]

    def __str__(self) -> str:
        anew = f"random still: {', '.join(self.anew)}" if self.anew else "none is random"
        return f"{self.taken:,} of {self.total:,} weights are those of {self.model}; {anew}"


def check_inheritance(preset: Preset, package: ModelPackage) -> None:
    """Raise TrainingError unless a network of `preset` can take over the weights of the package's.

    Both must be of the same kind, widths and blocks. The images, the classes and what is inside of the PDE layers may
    differ.
    """
    if KERAS_FILE not in package.card.files:
        raise TrainingError(f"{package.path} has no {KERAS_FILE} to start from")
    other = package.card.preset
    if _skeleton(other.network) != _skeleton(preset.network):
        raise TrainingError(
            f"{preset.name} cannot start from {other.name}: expected {preset.network}, got {other.network}"
        )


def inherit(classifier: Classifier, package: ModelPackage) -> Inheritance:
    """Give a network every weight of the package's whose place and shape are the same.

    The last layer starts anew where the labels differ.

    Raises:
        TrainingError: as `check_inheritance` does.
        ModelPackageError, ExportError: the package's `model.keras` is damaged.
    """
    preset, other = classifier.preset, package.card.preset
    check_inheritance(preset, package)
    package.read_file(KERAS_FILE)  # compares the checksum
    original = load_classifier(package.path / KERAS_FILE)
    taken, anew = 0, []
    for layer, source in zip(classifier.layers, original.layers, strict=True):
        weights, sources = _weights_by_place(layer), _weights_by_place(source)
        if layer.name == "logits" and preset.labels != other.labels:
            sources = {}
        fitting = {place for place in weights if place in sources and weights[place].shape == sources[place].shape}
        for place in fitting:
            weights[place].assign(sources[place])
            taken += int(np.prod(weights[place].shape))
        if fitting != weights.keys():
            anew.append(layer.name)
    total = sum(int(np.prod(weight.shape)) for weight in classifier.weights)
    return Inheritance(other.name, taken, total, tuple(anew))


def _skeleton(network: Network) -> Network:
    """Return the network with the same PDE layers as any other."""
    if isinstance(network, ResidualNetwork):
        return replace(network, pde=network.pde and PdeSpec())
    return replace(network, feature=PdeSpec()) if isinstance(network.feature, PdeSpec) else network


def _weights_by_place(layer: Any) -> dict[tuple[str, int], Any]:
    """Return the layer's weights by their paths, without the numbers, and which of an equal path each one is."""
    seen: Counter[str] = Counter()
    weights = {}
    for weight in layer.weights:
        # Keras numbers the layers of a process: equal networks have them in the same order, under other numbers.
        path = re.sub(r"_\d+(?=/)", "", weight.path)
        weights[path, seen[path]] = weight
        seen[path] += 1
    return weights
