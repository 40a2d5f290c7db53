"""Presets in JSON files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pdeinfer.errors import PresetError, TrainingError
from pdeinfer.spec.presets import PRESETS
from training.preset_file import read_preset
from training.recipes import RECIPES, recipe_for, standard_dataset


def test_a_preset_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    for preset in PRESETS.values():
        file.write_text(json.dumps(preset.to_dict()))
        assert read_preset(file) == preset


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "x"}', "\xff", "[" * 100_000])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(PresetError, match=str(file)):
        read_preset(file)


def test_another_network_has_the_recipe_of_its_kind_and_the_data_set_of_its_images() -> None:
    for name, preset in PRESETS.items():
        other = replace(preset, name="mine")
        assert standard_dataset(other) == RECIPES[name].dataset
        assert replace(recipe_for(other), dataset="folder") == replace(RECIPES[name], dataset="folder")
    with pytest.raises(TrainingError, match="mine"):
        standard_dataset(replace(PRESETS["cifar10-global"], name="mine", labels=("cat", "dog")))
