"""Finds the images that a finished training used, from its record."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.datasets.image_folder import ImageFolder, find_images, find_recorded_images
from pdeinfer.datasets.splits import Split, hold_out, sample_indices
from pdeinfer.datasets.standard import comes_in_files, holds_files, load_dataset, load_test_images
from pdeinfer.errors import DatasetError
from pdeinfer.images.files import scan_folder
from pdeinfer.images.formats import SUFFIXES
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import ImagesRecord, SplitRecord, TrainingRecord
from pdeinfer.text import counted

T = TypeVar("T")


def load_test_split(record: TrainingRecord | None, preset: Preset, data_dir: Path | None) -> Split:
    """Load the test images of a network, in its input format; nothing is downloaded.

    Args:
        record: of the network's training, from a `run.json` or a card.
        preset: the network's.
        data_dir: the folder with the data set; the digits need none.

    Raises:
        DatasetError: there is no record, or the data set is missing, damaged, or does not fit the network or the
            record.
    """
    record, folder = _require_data_dir(record, preset, data_dir)
    dataset = record.dataset
    if dataset == "folder":
        return _read_folder(record, preset, folder, "test")
    return _require_fit(load_test_images(dataset, folder), preset)


def load_validation_split(record: TrainingRecord | None, preset: Preset, data_dir: Path | None) -> Split:
    """Load the images that a training held out to choose its best epoch.

    Arguments are those of `load_test_split`.

    Raises:
        DatasetError: as in `load_test_split`, or these images have changed, or the training held none out.
    """
    record, folder = _require_data_dir(record, preset, data_dir, "--calibrate DIR")  # only export uses them
    dataset = record.dataset
    if dataset == "folder" and _recorded_split(record, "val") is not None:
        return _read_folder(record, preset, folder, "val")
    fraction = record.recipe.get("validation_fraction")
    if not fraction:
        raise DatasetError(f"{preset.name}: its training held out no validation images")
    if dataset == "folder":
        train = _read_folder(record, preset, folder, "train")
    else:
        train = _require_fit(load_dataset(dataset, folder).train, preset)
    return hold_out(train, fraction)[1]


def find_recorded_folder(record: TrainingRecord, preset: Preset, folder: Path) -> ImageFolder | None:
    """Find the images of the folder that a network was trained on; return None if `folder` has other test images."""
    try:
        found = _find_recorded(record, preset, folder)
    except DatasetError:
        return None
    return found if _is_recorded(found, record, preset, "test") else None


def load_training_images(
    record: TrainingRecord | None, preset: Preset, folder: Path, at_most: int | None = None
) -> Array:
    """Load images for calibrating a network, in its input format, without its test images.

    If the network was trained on a folder of images, `folder` must be that folder, without other training or test
    images. If it was trained on MNIST or CIFAR-10, `folder` may hold the files of that data set. In both cases the
    training images are loaded. In all others, every image file in `folder` is loaded or, if it has a subfolder for each
    class instead, the training images that `find_images` finds.

    Args:
        record, preset: as in `load_test_split`.
        at_most: decode only the `sample_indices` of this many files. A data set is loaded whole. None: no limit.

    Returns:
        uint8 (N, height, width, channels), N at least 1.

    Raises:
        DatasetError: the folder is missing, or has no images, or has a data set other than the record's.
        ImageError: an image file in `folder` itself cannot be read.
    """
    dataset = None if record is None else record.dataset
    if record is not None and dataset == "folder":
        return _read_training(_find_checked(record, preset, folder, "train"), preset, at_most)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images")
    if comes_in_files(dataset) and holds_files(dataset, folder):
        return _require_fit(load_dataset(dataset, folder).train, preset).images
    found = scan_folder(folder)
    if found.images:
        with IsolatedDecoders() as decoders:
            sample = _sample(found.images, at_most)
            return np.stack([decoders.to_array_where_needed(file, preset.input) for file in sample])
    if not any(each.path.is_dir() for each in found.left_out):
        files = f", or the files of {dataset}" if comes_in_files(dataset) else ""
        images = f"images ({' '.join(SUFFIXES)}), or a folder of them for each class"
        raise DatasetError(f"{folder}: expected {images}{files}")
    return _read_training(find_images(folder), preset, at_most)


def _read_training(folder: ImageFolder, preset: Preset, at_most: int | None) -> Array:
    # As files of one class: a class may have no readable image in a sample.
    files = [(file, 0) for file, _ in _sample(folder.files["train"], at_most)]
    split, _ = replace(folder, files={"train": files}).read_split("train", preset.input)
    return split.images


def _sample(files: Sequence[T], at_most: int | None) -> list[T]:
    return [files[index] for index in sample_indices(len(files), len(files) if at_most is None else at_most)]


def _require_data_dir(
    record: TrainingRecord | None, preset: Preset, data_dir: Path | None, option: str = "--data-dir"
) -> tuple[TrainingRecord, Path]:
    """Return the record and the folder of its data set, any for the digits, or raise DatasetError, naming an option."""
    if record is None:
        raise DatasetError(f"{preset.name}: no record of its training names its data set")
    if data_dir is None and record.dataset != "digits":
        what = (
            "the folder of images" if record.dataset == "folder" else f"the folder with the files of {record.dataset}"
        )
        raise DatasetError(f"{preset.name}: {option} must name {what}")
    return record, data_dir or Path()


def _require_fit(split: Split, preset: Preset) -> Split:
    spec = preset.input
    shape, classes = (spec.height, spec.width, spec.channels), len(preset.labels)
    if split.images.shape[1:] != shape or split.labels.max() >= classes:
        raise DatasetError(
            f"{preset.name}: expected images of shape {shape} and {classes} classes, "
            f"got a data set of {split.images.shape[1:]} and {split.labels.max() + 1}"
        )
    return split


def _read_folder(record: TrainingRecord, preset: Preset, data_dir: Path, name: str) -> Split:
    split, _ = _find_checked(record, preset, data_dir, name).read_split(name, preset.input)
    return split


def _find_checked(record: TrainingRecord, preset: Preset, data_dir: Path, name: str) -> ImageFolder:
    """Find the images of a training's folder; raise DatasetError if the test images or those of a split are others."""
    folder = _find_recorded(record, preset, data_dir)
    if folder.labels != preset.labels:
        raise DatasetError(
            f"{data_dir}: expected the classes {', '.join(preset.labels)}, got {', '.join(folder.labels)}"
        )
    # With other test images, some of them might be images that the network was trained on.
    for each in dict.fromkeys(("test", name)):  # checksums read every file: once
        if not _is_recorded(folder, record, preset, each):
            expected, found = _recorded_split(record, each), folder.files.get(each)
            known = "which are not recorded" if expected is None else counted(expected.files, "file")
            got = "none" if found is None else f"{counted(len(found), 'file')} with other names or contents"
            raise DatasetError(f"{data_dir}: expected the {each} images of the training, {known}, got {got}")
    return folder


def _find_recorded(record: TrainingRecord, preset: Preset, folder: Path) -> ImageFolder:
    return find_recorded_images(folder, record.images or ImagesRecord({}), preset.labels)


def _is_recorded(folder: ImageFolder, record: TrainingRecord, preset: Preset, name: str) -> bool:
    split = _recorded_split(record, name)
    if split is not None and name == "train":
        split = replace(split, contents_sha256=None)  # names suffice: calibration reads only a sample
    return folder.labels == preset.labels and folder.has_recorded(name, split)


def _recorded_split(record: TrainingRecord, name: str) -> SplitRecord | None:
    return None if record.images is None else record.images.splits.get(name)
