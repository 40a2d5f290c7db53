"""A folder of images, with a subfolder for each class, as a data set."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pdeinfer.datasets.splits import Dataset, Split, held_out
from pdeinfer.errors import DatasetError, ImageError
from pdeinfer.images.convert import SUFFIXES, to_array
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.spec.presets import InputSpec
from pdeinfer.spec.training_record import ImagesRecord, SplitRecord

LabelledFile: TypeAlias = tuple[Path, int]  # a file and the index of its class

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder, found but not decoded.

    Attributes:
        path: the folder.
        labels: the names of the classes' folders, sorted.
        files: the files of "train", of "test" and, where the folder has it, of "val".
        is_test_held_out: whether "test" was held out of the training images, at random.
        other_files: how many files lie beside the images and are not named as one.
    """

    path: Path
    labels: tuple[str, ...]
    files: Mapping[str, list[LabelledFile]]
    is_test_held_out: bool
    other_files: int

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def record(self) -> ImagesRecord:
        """Return what tells whether another look at the folder finds the same files and splits."""
        splits = {
            split: SplitRecord(
                len(files),
                hashlib.sha256(
                    "\n".join(file.relative_to(self.path).as_posix() for file, _ in files).encode(errors="replace")
                ).hexdigest(),
            )
            for split, files in self.files.items()
        }
        if self.is_test_held_out:
            return ImagesRecord(splits, TEST_FRACTION, SPLIT_SEED)
        return ImagesRecord(splits)

    def read(self, spec: InputSpec) -> tuple[Dataset, list[ImageError]]:
        """Decode every split, as `read_split` does."""
        splits, errors = {}, []
        for name in self.files:
            splits[name], unreadable = self.read_split(name, spec)
            errors += unreadable
        return Dataset(splits["train"], splits["test"], splits.get("val")), errors

    def read_split(self, name: str, spec: InputSpec) -> tuple[Split, list[ImageError]]:
        """Decode the images of a split, each as `pdeinfer.images.convert.to_array` does for prediction.

        All of them are held in memory, height x width x channels bytes each.

        Args:
            name: one of `files`.
            spec: the images wanted.

        Returns:
            The images that can be read, in the order of the files, and the errors of the others.

        Raises:
            DatasetError: of a class there is no image that can be read.
        """
        files = self.files[name]
        images = np.empty((len(files), spec.height, spec.width, spec.channels), np.uint8)
        labels = np.array([label for _, label in files], np.int64)

        def decode(index: int) -> ImageError | None:
            try:
                images[index] = to_array(files[index][0], spec)
            except ImageError as error:
                return error
            return None

        with ThreadPoolExecutor(available_cpus()) as pool:
            outcomes = list(pool.map(decode, range(len(files))))
        errors = [error for error in outcomes if error is not None]
        if errors:
            is_readable = np.array([error is None for error in outcomes])
            images, labels = images[is_readable], labels[is_readable]
        for index, label in enumerate(self.labels):
            if index not in labels:
                first = next(error for error, file in zip(outcomes, files, strict=True) if file[1] == index)
                raise DatasetError(f"{self.path}: of {label!r} no image in {name!r} can be read: {first}")
        return Split(images, labels), errors


def find_images(folder: Path) -> ImageFolder:
    """Find the images of a folder and the classes and splits that they belong to.

    `folder/CLASS/*` is one layout; `folder/train/CLASS/*` with `folder/test/CLASS/*` and `folder/val/CLASS/*`, where
    present, the other: it is taken to be the second where `folder/train` holds folders. The classes are the folders,
    sorted by name; those whose names begin with a dot are left out, and so are such files. An image is a file that lies
    in the folder of a class and has a suffix of `pdeinfer.images.convert.SUFFIXES`.

    Without `folder/test`, a fifth of each class is held out for it, at random, the same at every call.

    Raises:
        DatasetError: there is no such folder, it has another layout or fewer than two classes, or a class has too few
            images for its splits.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, with a subfolder for each class")
    subfolders = _subfolders(folder)
    if "train" in subfolders and _subfolders(folder / "train"):
        if surplus := sorted(set(subfolders) - set(SPLITS)):
            raise DatasetError(f"{folder}: expected {', '.join(SPLITS)} and no other folder, got {', '.join(surplus)}")
        roots = {split: folder / split for split in SPLITS if split in subfolders}
    else:
        roots = {"train": folder}
    labels = _subfolders(roots["train"])
    if len(labels) < 2:
        raise DatasetError(
            f"{roots['train']}: expected a folder for each of at least two classes, got {', '.join(labels) or 'none'}"
        )
    files: dict[str, list[LabelledFile]] = {}
    other_files = 0
    for split, root in roots.items():
        if _subfolders(root) != labels:
            raise DatasetError(
                f"{root}: expected the folders of {roots['train']} ({', '.join(labels)}), "
                f"got {', '.join(_subfolders(root)) or 'none'}"
            )
        files[split] = []
        for index, label in enumerate(labels):
            images, others = _class_files(root / label)
            files[split] += [(image, index) for image in images]
            other_files += others
    is_test_held_out = "test" not in files
    if is_test_held_out:
        files["train"], files["test"] = _hold_out_test(files["train"], labels)
    return ImageFolder(folder, tuple(labels), files, is_test_held_out, other_files)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(folder: Path) -> tuple[list[Path], int]:
    """Return the images in the folder, sorted by name, and the number of its other files."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        suffixes = sorted({path.suffix or "no suffix" for path in files})
        raise DatasetError(f"{folder}: expected images ({' '.join(SUFFIXES)}), got {', '.join(suffixes) or 'no file'}")
    return images, len(files) - len(images)


def _hold_out_test(files: list[LabelledFile], labels: list[str]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    indices = np.array([index for _, index in files])
    for label, count in zip(labels, np.bincount(indices), strict=True):
        if count < 2:
            raise DatasetError(f"{files[0][0].parent.parent / label}: expected at least 2 images, one to test, got 1")
    is_test = held_out(indices, TEST_FRACTION, SPLIT_SEED)
    train = [file for file, chosen in zip(files, is_test, strict=True) if not chosen]
    return train, [file for file, chosen in zip(files, is_test, strict=True) if chosen]
