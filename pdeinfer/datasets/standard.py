"""Reads and checks the files of the standard data sets."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import TypeGuard

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.datasets.splits import Dataset, Split, hold_out
from pdeinfer.errors import DatasetError, MissingDependencyError
from pdeinfer.spec.training_record import DatasetName, StandardName

_CIFAR10_RECORD = 1 + 3 * 32 * 32  # one label byte, then the red, green and blue planes, row by row
_CIFAR10_BATCH = 10_000
_CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_CIFAR10_TEST = "test_batch.bin"
_FILES: dict[str, tuple[str, ...]] = {
    "mnist": tuple(f"{split}-{file}-ubyte" for split in ("train", "t10k") for file in ("images-idx3", "labels-idx1")),
    "cifar10": (*_CIFAR10_TRAIN, _CIFAR10_TEST),
}


def load_dataset(name: StandardName, data_dir: Path | None) -> Dataset:
    """Load a data set.

    Args:
        data_dir: the folder with the standard files, gzipped or not, or with one subfolder that has them: the four IDX
            files of MNIST, or the six binary files of CIFAR-10. None: Keras downloads them. The digits (1,797 images of
            8x8 pixels) come with scikit-learn and need no folder.

    Raises:
        DatasetError: a file is missing, damaged or of another format; the message names it.
    """
    if name == "digits":
        return _load_digits()
    if data_dir is None:
        return _download(name)
    folder = _find_folder(name, data_dir)
    return Dataset(_load_split(name, folder, is_test=False), _load_split(name, folder, is_test=True))


def load_test_images(name: StandardName, data_dir: Path) -> Split:
    """Load the test images of a data set as `load_dataset` does, without the files of its training images."""
    return _load_digits().test if name == "digits" else _load_split(name, _find_folder(name, data_dir), is_test=True)


def _find_folder(name: StandardName, data_dir: Path) -> Path:
    """Return the folder with the files of a data set: `data_dir`, or one in it."""
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: expected a folder with the files of {name}")
    folders = _folders(name, data_dir)
    if not folders:
        version = ", of CIFAR-10's binary version," if name == "cifar10" else ""
        raise DatasetError(
            f"{data_dir}: no file {_FILES[name][0]} (or {_FILES[name][0]}.gz){version} in it or one level down"
        )
    if len(folders) > 1:  # other data sets have files of the same names, as Fashion-MNIST has those of MNIST
        raise DatasetError(
            f"{data_dir}: expected the files of {name} in one of its folders, found some in "
            f"{' and '.join(folder.name for folder in folders)}"
        )
    return folders[0]


def _load_digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", None, "the digits data set") from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    train, test = hold_out(Split(images, digits.target.astype(np.int64)), 0.2)
    return Dataset(train, test)


def _download(name: StandardName) -> Dataset:
    try:
        import keras
    except ImportError as error:
        raise MissingDependencyError(
            "keras", "train", f"downloading {name} (--data-dir reads it from a folder)"
        ) from error
    module = {"mnist": keras.datasets.mnist, "cifar10": keras.datasets.cifar10}[name]
    try:
        splits = module.load_data()
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, OSError):  # what Keras raises for a failed download
            raise
        raise DatasetError(f"{name}: the download failed ({error}); --data-dir names a folder that has it") from error
    train, test = (
        Split(images.reshape(*images.shape[:3], -1), labels.reshape(-1).astype(np.int64)) for images, labels in splits
    )
    return Dataset(train, test)


def comes_in_files(name: DatasetName | None) -> TypeGuard[StandardName]:
    """Return whether a data set is read from standard files, as neither the digits nor a folder of images are."""
    return name in _FILES


def holds_files(name: StandardName, folder: Path) -> bool:
    """Return whether a folder has any file of a data set in the places where `load_dataset` looks."""
    return folder.is_dir() and bool(_folders(name, folder))


def _load_split(name: StandardName, folder: Path, *, is_test: bool) -> Split:
    if name == "mnist":
        return _load_mnist(folder, *(("t10k", 10_000) if is_test else ("train", 60_000)))
    batches = [_read_cifar10(_find(folder, file)) for file in ((_CIFAR10_TEST,) if is_test else _CIFAR10_TRAIN)]
    return Split(
        np.concatenate([batch.images for batch in batches]), np.concatenate([batch.labels for batch in batches])
    )


def _load_mnist(folder: Path, prefix: str, count: int) -> Split:
    images = _read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"), (count, 28, 28))
    path = _find(folder, f"{prefix}-labels-idx1-ubyte")
    labels = _read_idx(path, (count,)).astype(np.int64)
    _check_labels(path, labels)
    return Split(images[..., np.newaxis], labels)


def _folders(name: StandardName, data_dir: Path) -> list[Path]:
    """Return the folders with files of a data set: `data_dir` itself, or else its subfolders."""

    def holds_any(folder: Path) -> bool:
        return any(_path(folder, file) for file in _FILES[name])

    return [data_dir] if holds_any(data_dir) else [folder for folder in sorted(data_dir.iterdir()) if holds_any(folder)]


def _find(folder: Path, name: str) -> Path:
    found = _path(folder, name)
    if found is None:
        raise DatasetError(f"{folder}: no file {name} (or {name}.gz) in it")
    return found


def _path(folder: Path, name: str) -> Path | None:
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    # Path.is_file raises if the folder may not be searched.
    return next((folder / file for file in names if os.path.isfile(folder / file)), None)  # noqa: PTH113


def _read_bytes(path: Path, size: int) -> bytes:
    """Return the `size` bytes of a file, decompressed if its name ends in .gz."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(content) != size:
        came = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise DatasetError(f"{path}: expected {size:,} bytes, got {came}")
    return content


def _read_idx(path: Path, shape: tuple[int, ...]) -> Array:
    """Return the array of an IDX file of unsigned bytes: a header of big-endian 32-bit numbers, then the values."""
    header = struct.pack(f">{1 + len(shape)}i", 0x0800 | len(shape), *shape)
    content = _read_bytes(path, len(header) + math.prod(shape))
    if not content.startswith(header):
        raise DatasetError(f"{path}: expected an IDX file of unsigned bytes of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _read_cifar10(path: Path) -> Split:
    records = np.frombuffer(_read_bytes(path, _CIFAR10_BATCH * _CIFAR10_RECORD), np.uint8)
    records = records.reshape(_CIFAR10_BATCH, _CIFAR10_RECORD)
    labels = records[:, 0].astype(np.int64)
    _check_labels(path, labels)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _check_labels(path: Path, labels: Array) -> None:
    if labels.max() > 9:
        raise DatasetError(f"{path}: expected labels 0 to 9, got {labels.max()}")
