"""A training on a folder of images is named after the folder and the network."""

from dataclasses import replace
from pathlib import Path

import pytest

from pdeinfer.spec.presets import PRESETS
from training.network_choice import NetworkChoice


@pytest.mark.parametrize(
    ("preset", "folder", "name"),
    [
        ("cifar10-global", "data/flowers/", "flowers-global"),
        ("cifar10-global-no-advection", "Früh & spät", "Fr-h-sp-t-global-no-advection"),
        ("digits-pde", "写真", "images-pde"),
        ("mynet", "photos", "photos-mynet"),
    ],
)
def test_a_training_is_named_after_folder_and_network(preset: str, folder: str, name: str) -> None:
    choice = NetworkChoice(replace(PRESETS["digits-pde"], name=preset), None)
    assert choice.training_name(Path(folder)) == name
