"""Reads a folder of images, with a subfolder for each class, as a data set."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer.datasets.splits import Dataset, Split, choice_by_name, stratified_choice
from pdeinfer.errors import DatasetError, ImageError
from pdeinfer.images.damage import MACHINE_ERRORS
from pdeinfer.images.files import LeftOut, count_files, find_repeats, scan_folder, visible, why_no_image
from pdeinfer.images.formats import SUFFIXES
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.training_record import ImagesRecord, SplitRecord

LabelledFile: TypeAlias = tuple[Path, int]  # a file and the index of its class
Decode: TypeAlias = Callable[[Path, InputSpec], NDArray[np.uint8]]
Allocate: TypeAlias = Callable[[tuple[int, ...]], NDArray[np.uint8]]
SplitMethod: TypeAlias = Literal["path", "position"]  # what decides whether a file is held out

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.2
SPLIT_SEED = 0


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder, found but not decoded.

    Attributes:
        path: the folder.
        labels: the names of the classes' folders, sorted.
        files: the files of "train", of "test" and, if the folder has it or it was held out, of "val".
        is_test_held_out: whether "test" was held out of the training images, at random.
        validation_fraction: the part of each class that was held out as "val", at random; None if none was.
        split_method: what decided which files were held out.
        left_out: everything else in the folder, hidden names excepted, with the reasons.
    """

    path: Path
    labels: tuple[str, ...]
    files: Mapping[str, list[LabelledFile]]
    is_test_held_out: bool
    validation_fraction: float | None = None
    split_method: SplitMethod = "path"
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def record(self) -> ImagesRecord:
        """Return the record of a training on these images. Every file is read, for the checksums of the contents."""
        splits = {
            name: SplitRecord(len(files), self._names_sha256(name), _contents_sha256(files))
            for name, files in self.files.items()
        }
        is_drawn = self.is_test_held_out or self.validation_fraction is not None
        return ImagesRecord(
            splits,
            test_fraction=TEST_FRACTION if self.is_test_held_out else None,
            validation_fraction=self.validation_fraction,
            split_method="path" if is_drawn and self.split_method == "path" else None,
            split_seed=SPLIT_SEED if is_drawn and self.split_method == "position" else None,
        )

    def has_recorded(self, name: str, split: SplitRecord | None) -> bool:
        """Return whether a split has the files of a recorded one: the same names and, if recorded, the same contents.

        Other photos may have the same names: cameras number them alike.
        """
        if split is None or name not in self.files or split.sha256 != self._names_sha256(name):
            return False
        return split.contents_sha256 is None or split.contents_sha256 == _contents_sha256(self.files[name])

    def _names_sha256(self, name: str) -> str:
        names = "\n".join(file.relative_to(self.path).as_posix() for file, _ in self.files[name])
        return hashlib.sha256(names.encode(errors="replace")).hexdigest()

    def read(
        self, spec: InputSpec, decode: Decode | None = None, allocate: Allocate = _allocate
    ) -> tuple[Dataset, list[ImageError]]:
        """Decode every split with `read_split`."""
        splits, errors = {}, []
        for name in self.files:
            splits[name], unreadable = self.read_split(name, spec, decode, allocate)
            errors += unreadable
        return Dataset(splits["train"], splits["test"], splits.get("val")), errors

    def read_split(
        self, name: str, spec: InputSpec, decode: Decode | None = None, allocate: Allocate = _allocate
    ) -> tuple[Split, list[ImageError]]:
        """Decode the images of a split.

        Args:
            name: a key of `files`.
            spec: the images wanted.
            decode: a method of `pdeinfer.images.isolation.IsolatedDecoders`; by default `to_array_where_needed`.
            allocate: returns a uint8 array of the shape (N, height, width, channels); by default in memory.

        Returns:
            The images that can be read, in the order of the files, and the errors of the others.

        Raises:
            DatasetError: no image of a class can be read; of a "val" that was held out, no image at all.
        """
        if decode is None:
            with IsolatedDecoders() as decoders:
                return self.read_split(name, spec, decoders.to_array_where_needed, allocate)
        files = self.files[name]
        images = allocate((len(files), spec.height, spec.width, spec.channels))
        labels = np.array([label for _, label in files], np.int64)

        def decode_file(index: int) -> ImageError | None:
            try:
                images[index] = decode(files[index][0], spec)
            except ImageError as error:
                return error
            return None

        with ThreadPoolExecutor(available_cpus()) as pool:
            outcomes = list(pool.map(decode_file, range(len(files))))
        errors = [error for error in outcomes if error is not None]
        if errors:
            readable = [index for index, error in enumerate(outcomes) if error is None]
            for place, index in enumerate(readable):  # in place: there may be no memory for a second array
                images[place] = images[index]
            images, labels = images[: len(readable)], labels[readable]
        for index in sorted({label for _, label in files} - set(labels.tolist())):
            if name == "val" and self.validation_fraction is not None and len(labels):
                continue  # the other classes can still choose the epoch
            first = next(error for error, file in zip(outcomes, files, strict=True) if file[1] == index)
            raise DatasetError(
                f"{self.path}: no image of class {self.labels[index]!r} in {name!r} can be read: {first}"
            )
        return Split(images, labels), errors


def find_images(
    folder: Path,
    validation_fraction: float | None = None,
    *,
    split_method: SplitMethod = "path",
    labels: Sequence[str] | None = None,
    keep_links: bool = False,
) -> ImageFolder:
    """Find the images of a folder, with their classes and splits.

    One layout is `folder/CLASS/*`. The other is `folder/train/CLASS/*` with `folder/test/CLASS/*` and
    `folder/val/CLASS/*` if present; it is assumed if `folder/train` holds folders. The classes are the names of the
    folders, sorted. Names that begin with a dot are ignored. An image is a file in the folder of a class that
    `pdeinfer.images.files.find_image_files` takes. Everything else is in `left_out`, and so are links to an image that
    is found without them.

    Without `folder/test`, about a fifth of each class is held out for it at random, the same at every call.

    Args:
        folder: its path.
        validation_fraction: hold out about this part of each class's training images as "val", unless there is
            `folder/val`.
        split_method: what decides whether a file is held out. By its path, it keeps its split when files are added. By
            its position among all files, it may not; trainings of earlier versions need this.
        labels: the classes to look for; folders with other names are left out. None: every folder is a class.
        keep_links: also take links to images that are found without them, as trainings of earlier versions did.

    Raises:
        DatasetError: there is no such folder, it has another layout or fewer than two classes, or a class has too few
            images for its splits.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, with a subfolder for each class")
    subfolders = _subfolders(folder)
    left_out: list[LeftOut] = []
    if "train" in subfolders and _subfolders(folder / "train"):
        if labels is None and (surplus := sorted(set(subfolders) - set(SPLITS))):
            raise DatasetError(f"{folder}: expected {', '.join(SPLITS)} and no other folder, got {', '.join(surplus)}")
        roots = {split: folder / split for split in SPLITS if split in subfolders}
        left_out += _strays(folder, SPLITS)
    else:
        roots = {"train": folder}
    classes = _subfolders(roots["train"], labels)
    if labels is not None and sorted(labels) != classes:
        raise DatasetError(
            f"{roots['train']}: expected the folders {', '.join(labels)}, "
            f"got {', '.join(_subfolders(roots['train'])) or 'none'}"
        )
    if len(classes) < 2:
        raise DatasetError(
            f"{roots['train']}: expected a folder for each of at least two classes, got {', '.join(classes) or 'none'}"
        )
    files: dict[str, list[LabelledFile]] = {}
    for split, root in roots.items():
        if (found := _subfolders(root, labels)) != classes:
            raise DatasetError(
                f"{root}: expected the folders of {roots['train']} ({', '.join(classes)}), "
                f"got {', '.join(found) or 'none'}"
            )
        files[split], others = _find_labelled(root, classes)
        left_out += others
    files, links = (files, ()) if keep_links else _without_repeats(files)
    left_out += links
    is_test_held_out = "test" not in files
    if is_test_held_out:
        for label, count in zip(classes, np.bincount([index for _, index in files["train"]]), strict=True):
            if count < 2:
                raise DatasetError(f"{folder / label}: expected at least 2 images, one to test, got 1")
        files["train"], files["test"] = _hold_out(files["train"], TEST_FRACTION, split_method, "test")
    fraction = None if "val" in files else validation_fraction
    if fraction is not None:
        files["train"], files["val"] = _hold_out(files["train"], fraction, split_method, "val")
    return ImageFolder(folder, tuple(classes), files, is_test_held_out, fraction, split_method, tuple(left_out))


def find_recorded_images(folder: Path, images: ImagesRecord, labels: Sequence[str] | None = None) -> ImageFolder:
    """Find the images of a folder with the splits of the training that recorded it, as `find_images` does."""
    method: SplitMethod = "path" if images.split_method == "path" else "position"
    keep_links = all(split.contents_sha256 is None for split in images.splits.values())
    return find_images(folder, images.validation_fraction, split_method=method, labels=labels, keep_links=keep_links)


def _contents_sha256(files: Sequence[LabelledFile]) -> str:
    with ThreadPoolExecutor(available_cpus()) as pool:
        digests = list(pool.map(_file_digest, [file for file, _ in files]))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _file_digest(file: Path) -> bytes:
    """Return the SHA-256 of a file; one that cannot be read counts as empty, as training leaves it out."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        if error.errno in MACHINE_ERRORS:
            raise
        return hashlib.sha256().digest()


def _find_labelled(root: Path, labels: list[str]) -> tuple[list[LabelledFile], list[LeftOut]]:
    """Return the images in the folders of the classes, and everything else in `root`."""
    files: list[LabelledFile] = []
    left_out = _strays(root, labels)
    for index, label in enumerate(labels):
        found = scan_folder(root / label)
        left_out += found.left_out
        if not found.images:
            got = ", ".join(sorted({each.path.suffix or each.reason for each in found.left_out})) or "no file"
            raise DatasetError(f"{root / label}: expected images ({' '.join(SUFFIXES)}), got {got}")
        files += [(image, index) for image in found.images]
    return files, left_out


def _without_repeats(
    files: Mapping[str, list[LabelledFile]],
) -> tuple[dict[str, list[LabelledFile]], Iterable[LeftOut]]:
    """Take out links to images that are found anyway, for one image could be in two splits; return these links too."""
    repeats = find_repeats([file for found in files.values() for file, _ in found])
    kept = {name: [each for each in found if each[0] not in repeats] for name, found in files.items()}
    for name, found in files.items():
        labels = {label for _, label in kept[name]}
        for file, label in found:
            if label not in labels:
                raise DatasetError(f"{file.parent}: expected images, got links to other images of the data set")
    return kept, repeats.values()


def _subfolders(folder: Path, labels: Sequence[str] | None = None) -> list[str]:
    """Return the names of the folders in a folder or, of those, the ones in `labels`."""
    names = [path.name for path in visible(folder) if path.is_dir()]
    return [name for name in names if labels is None or name in labels]


def _strays(folder: Path, known: Sequence[str]) -> list[LeftOut]:
    """Return what is next to the `known` folders of the classes or splits."""
    strays = []
    for path in visible(folder):
        if not path.is_dir():
            strays.append(LeftOut(path, why_no_image(path) or "outside the class folders"))
        elif path.name not in known:
            strays.append(LeftOut(path, "a folder of none of the classes", count_files(path)))
    return strays


def _hold_out(
    files: list[LabelledFile], fraction: float, method: SplitMethod, split: str
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    labels = np.array([index for _, index in files])
    if method == "path":
        names = ["/".join(file.parts[-2:]) for file, _ in files]  # CLASS/NAME
        is_held_out = choice_by_name(names, labels, fraction, split)
    else:
        is_held_out = stratified_choice(labels, fraction, SPLIT_SEED)
    rest = [file for file, chosen in zip(files, is_held_out, strict=True) if not chosen]
    return rest, [file for file, chosen in zip(files, is_held_out, strict=True) if chosen]
