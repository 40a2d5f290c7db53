"""Chooses the network of a training and the model whose weights it starts from."""

import re
from dataclasses import dataclass
from pathlib import Path

from pdeinfer.package.package import ModelPackage
from pdeinfer.spec.presets import PRESETS, Preset
from training.packages import load_package
from training.preset_file import read_preset

IMAGE_FOLDER_MODEL = "cifar10-global"  # the bundled model that a training on an image folder starts from

_NO_INIT = "none"


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """What a new training trains.

    Attributes:
        preset: the preset whose network is trained.
        package: the model whose weights it starts from; None: random weights.
    """

    preset: Preset
    package: ModelPackage | None

    def training_name(self, image_folder: Path | None) -> str:
        """Return the name of a training: the preset's or, on a folder of images, that of both.

        It is "photos-global" for "cifar10-global" on `photos`. A preset's name without a dash stays whole:
        "photos-mine" for "mine".
        """
        network = self.preset.name
        if image_folder is None:
            return network
        folder = re.sub(r"[^A-Za-z0-9._-]+", "-", image_folder.resolve().name).strip("-._")
        return f"{folder or 'images'}-{network.partition('-')[2] or network}"


def choose_network(preset: str | None, preset_file: Path | None, init: str | None) -> NetworkChoice:
    """Return the network that options ask for.

    Without a preset it is the network of a bundled model, or of the one that `init` names, with its weights.

    Args:
        preset: a preset's name. preset_file: the JSON file of one.
        init: the model to start from, or "none".

    Raises:
        TrainingError, ModelNotFoundError, ModelPackageError: as `training.packages.load_package` does.
        PresetError, OSError: as `read_preset` does.
    """
    asked = None if preset is None else PRESETS[preset]
    if preset_file is not None:
        asked = read_preset(preset_file)
    source = init or (IMAGE_FOLDER_MODEL if asked is None else _NO_INIT)
    if source == _NO_INIT:
        return NetworkChoice(asked or PRESETS[IMAGE_FOLDER_MODEL], None)
    package = load_package(source)
    return NetworkChoice(asked or package.card.preset, package)
