"""The test images of a finished training, found again from what it recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pdeinfer.datasets.image_folder import find_images
from pdeinfer.datasets.splits import DatasetName, Split
from pdeinfer.datasets.standard import load_dataset
from pdeinfer.errors import DatasetError
from pdeinfer.presets import Preset


def load_test_split(training: Mapping[str, Any], preset: Preset, data_dir: Path | None) -> Split:
    """Load the test images of a network, as it takes them; nothing is downloaded.

    Args:
        training: what `python -m training.run` recorded: the content of a `run.json`, or a card's `training`.
        preset: the network's.
        data_dir: the folder with the data set; the digits need none.

    Raises:
        DatasetError: the record names no data set; or the data set is missing or damaged, or does not fit the network
            or the record.
    """
    dataset = _dataset_name(training, preset)
    if dataset == "digits":
        return _check(load_dataset("digits", None).test, preset)
    if data_dir is None:
        what = "the folder of images" if dataset == "folder" else f"the folder with the files of {dataset}"
        raise DatasetError(f"{preset.name}: --data-dir must name {what}")
    if dataset == "folder":
        return _read_folder(training, preset, data_dir)
    return _check(load_dataset(dataset, data_dir).test, preset)


def _dataset_name(training: Mapping[str, Any], preset: Preset) -> DatasetName:
    recipe = training.get("recipe")
    found: Any = recipe.get("dataset") if isinstance(recipe, Mapping) else None
    if found not in get_args(DatasetName):
        raise DatasetError(
            f"{preset.name}: the record of its training names no data set: recipe.dataset must be one of "
            f"{', '.join(get_args(DatasetName))}, not {found!r}"
        )
    name: DatasetName = found
    return name


def _check(test: Split, preset: Preset) -> Split:
    spec = preset.input
    shape, classes = (spec.height, spec.width, spec.channels), len(preset.labels)
    if test.images.shape[1:] != shape or test.labels.max() >= classes:
        raise DatasetError(
            f"{preset.name}: expected images of shape {shape} and {classes} classes, "
            f"and those of its data set have {test.images.shape[1:]} and {test.labels.max() + 1}"
        )
    return test


def _read_folder(training: Mapping[str, Any], preset: Preset, data_dir: Path) -> Split:
    folder = find_images(data_dir)
    images = training.get("images")
    splits = images.get("splits") if isinstance(images, Mapping) else None
    expected = splits.get("test") if isinstance(splits, Mapping) else None
    found = folder.record()["splits"]["test"]
    # Another list of files might make test images of what the network was trained on.
    if folder.labels != preset.labels or found != expected:
        raise DatasetError(
            f"{data_dir}: its test images are not those of the training: expected {expected} and the classes "
            f"{', '.join(preset.labels)}, got {found} and {', '.join(folder.labels)}"
        )
    test, _ = folder.read_split("test", preset.input)
    return test
