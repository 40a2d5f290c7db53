"""Copies the weights of a trained model into a new network."""

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.errors import TrainingError
from pdeinfer.nn import Classifier, GlobalLayer
from pdeinfer.nn.loading import load_classifier
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.networks import Network, ResidualNetwork
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import Preset


@dataclass(frozen=True)
class WeightTransfer:
    """The weights that a network received from a trained one.

    Attributes:
        model: the trained model's name.
        copied: how many of the `total` weights were copied; both count the statistics of the normalisations.
        random_layers: the names of the layers that still have random weights, in whole or in part.
    """

    model: str
    copied: int
    total: int
    random_layers: tuple[str, ...]

    def __str__(self) -> str:
        still = f"random: {', '.join(self.random_layers)}" if self.random_layers else "no layer is random"
        return f"copied {self.copied:,} of {self.total:,} weights from {self.model}; {still}"


def check_transferable(preset: Preset, package: ModelPackage) -> None:
    """Raise TrainingError unless a network of `preset` can start from the package's weights.

    Both networks must have the same kind, widths and blocks. The images, the classes, the padding of strided
    convolutions and the inside of the PDE layers may differ.
    """
    if KERAS_FILE not in package.card.files:
        raise TrainingError(f"{package.path} has no {KERAS_FILE} to start from")
    other = package.card.preset
    if _skeleton(other.network) != _skeleton(preset.network):
        raise TrainingError(
            f"{preset.name} cannot start from {other.name}: expected {preset.network}, got {other.network}"
        )


def transfer_weights(classifier: Classifier, package: ModelPackage) -> WeightTransfer:
    """Copy every weight of the package's network that has a counterpart of the same shape in `classifier`.

    The last layer stays random where the labels differ.

    Raises:
        TrainingError: the networks do not match; see `check_transferable`.
        ModelPackageError, ExportError: the package's `model.keras` is damaged.
    """
    preset, other = classifier.preset, package.card.preset
    check_transferable(preset, package)
    with tempfile.TemporaryDirectory() as folder:
        package.copy_files(Path(folder), KERAS_FILE)
        original = load_classifier(Path(folder) / KERAS_FILE)
    copied, random_layers = 0, []
    # Layers without weights may differ: they pad.
    layers, trained = ([layer for layer in network.layers if layer.weights] for network in (classifier, original))
    for layer, source in zip(layers, trained, strict=True):
        weights, sources = _weights_by_place(layer), _weights_by_place(source)
        if layer.name == "logits" and preset.labels != other.labels:
            sources = {}
        fitting = {place for place in weights if place in sources and weights[place].shape == sources[place].shape}
        for place in fitting:
            weights[place].assign(sources[place])
            copied += int(np.prod(weights[place].shape))
        if fitting != weights.keys():
            random_layers.append(layer.name)
    total = sum(int(np.prod(weight.shape)) for weight in classifier.weights)
    return WeightTransfer(other.name, copied, total, tuple(random_layers))


def _skeleton(network: Network) -> Network:
    """Return the network with default padding, and with its PDE layers, if any, replaced by default ones."""
    if isinstance(network, ResidualNetwork):
        return replace(network, pde=network.pde and PdeSpec(), strided_padding="same")
    return replace(network, feature=PdeSpec()) if isinstance(network.feature, PdeSpec) else network


def _weights_by_place(layer: Any) -> dict[tuple[str, int], Any]:
    """Return the layer's weights by path, without the numbers in it, and by position among those of the same path.

    The paths in a PDE layer begin with the names of its parts, which Keras leaves out for those of several layers.
    """
    parts = [layer]
    if isinstance(layer, GlobalLayer):
        parts = [*layer.inner_layers(), layer.norm]
    seen: Counter[str] = Counter()
    weights = {}
    for part in parts:
        for weight in part.weights:
            # Keras numbers the layers of a process: equal networks have them in the same order, under other numbers.
            path = re.sub(r"_\d+(?=/)", "", f"{part.name}/{weight.path}")
            weights[path, seen[path]] = weight
            seen[path] += 1
    return weights
