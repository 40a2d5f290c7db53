"""The recipes: how each network is trained."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import keras

from pdeinfer.datasets import DatasetName, StandardName
from pdeinfer.errors import TrainingError
from pdeinfer.spec.networks import SingleChannelNetwork
from pdeinfer.spec.presets import PRESETS, Preset
from training.muon import ConvMuon


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, and on which data.

    Attributes:
        dataset: as in `pdeinfer.datasets.load_dataset`.
        epochs, batch_size: of the training.
        optimizer: "sgd" (momentum 0.9, Nesterov), "adam" or "muon" (`training.muon.ConvMuon`).
        learning_rate: the peak, reached linearly after `warmup_epochs`; a cosine then takes it to 0.
        weight_decay: decoupled, times the learning rate; "muon" decays only kernels. With momentum 0.9 the coupled
            decay (L2) that PyTorch's SGD calls `weight_decay` is a tenth of it.
        clip_norm: the limit of the gradient's global norm, or None.
        crop_padding: black pixels around an image before a random crop to its size; 0: no random crop.
        flip: whether images are mirrored left to right at random.
        mixup: alpha of mixup, or 0 for none: images and labels are mixed with those of another image of the batch, at a
            ratio drawn from Beta(alpha, alpha).
        distillation_weight, temperature: as in `training.distillation.DistillationLoss`; only with a teacher.
        validation_fraction: the part of the training images held out to choose the best epoch; 0: train on all images
            and keep the last epoch.
        patience: end the training when the best validation accuracy is this many epochs old; None: never.
        balance: whether images of rare classes count for more (`training.batches.Batches`).
        initializations: random initial weights that are tried for an epoch each; see `training.initialization`.
    """

    dataset: DatasetName
    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "adam", "muon"]
    learning_rate: float
    weight_decay: float = 0.0
    warmup_epochs: int = 1
    clip_norm: float | None = None
    crop_padding: int = 0
    flip: bool = False
    validation_fraction: float = 0.1
    initializations: int = 1
    mixup: float = 0.0
    patience: int | None = None
    balance: bool = False
    distillation_weight: float = 0.0
    temperature: float = 4.0

    def make_optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return the optimizer with its learning-rate schedule."""
        warmup_steps = min(self.warmup_epochs, self.epochs - 1) * steps_per_epoch
        schedule = keras.optimizers.schedules.CosineDecay(
            self.learning_rate / 100 if warmup_steps else self.learning_rate,
            decay_steps=self.epochs * steps_per_epoch - warmup_steps,
            warmup_target=self.learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
        kwargs: dict[str, Any] = {"weight_decay": self.weight_decay or None, "global_clipnorm": self.clip_norm}
        if self.optimizer == "adam":
            return keras.optimizers.Adam(schedule, **kwargs)
        if self.optimizer == "muon":
            return ConvMuon(schedule, adam_weight_decay=self.weight_decay, exclude_layers=["logits"], **kwargs)
        return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, **kwargs)


DISTILLATION_WEIGHT = 0.9  # where there is a teacher

_MNIST = Recipe(
    "mnist", epochs=60, batch_size=128, optimizer="adam", learning_rate=0.02, clip_norm=5.0, initializations=8
)
_CIFAR10 = Recipe(
    "cifar10",
    epochs=150,
    batch_size=128,
    optimizer="muon",
    learning_rate=0.01,
    weight_decay=0.05,
    crop_padding=4,
    flip=True,
    validation_fraction=0.0,
)

RECIPES: dict[str, Recipe] = {
    "digits-pde": Recipe(
        "digits", epochs=40, batch_size=32, optimizer="adam", learning_rate=0.01, crop_padding=1, warmup_epochs=2
    ),
    "mnist-cnn": _MNIST,
    "mnist-residual": _MNIST,
    "mnist-pde": _MNIST,
    "mnist-pde-k1": _MNIST,
    "mnist-pde-k2": _MNIST,
    "mnist-pde-k10": _MNIST,
    **{name: _CIFAR10 for name in PRESETS if name.startswith("cifar10-")},
}


def recipe_for(preset: Preset) -> Recipe:
    """Return the recipe of a preset by its name; of an unknown name, that for networks of its kind and channels."""
    if preset.name in RECIPES:
        return RECIPES[preset.name]
    if isinstance(preset.network, SingleChannelNetwork):
        return _MNIST
    return RECIPES["digits-pde"] if preset.input.channels == 1 else _CIFAR10


def standard_dataset(preset: Preset) -> StandardName:
    """Return the standard data set that has the preset's image size and labels.

    Raises:
        TrainingError: there is none.
    """
    shape = preset.input.height, preset.input.width, preset.input.channels
    for other in PRESETS.values():
        if other.labels == preset.labels and shape == (other.input.height, other.input.width, other.input.channels):
            return cast(StandardName, RECIPES[other.name].dataset)
    raise TrainingError(
        f"{preset.name}: no standard data set has images of shape {shape} and these {len(preset.labels)} labels; "
        "name a folder of photos as SOURCE"
    )
