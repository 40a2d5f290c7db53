"""Finds the images in a folder whose subfolders are named after a model's labels."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdeinfer.datasets.image_folder import LabelledFile
from pdeinfer.errors import DatasetError
from pdeinfer.images.files import LeftOut, count_files, find_repeats, scan_folder, visible
from pdeinfer.images.formats import SUFFIXES


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """The image files of a folder, found but not decoded.

    Attributes:
        folder: where the folders of the classes are.
        files: every image in a folder named after a label, with the label's index.
        unknown_labels: the names of the other folders, with the number of files in each.
        left_out: everything else, hidden names excepted, with the reasons.
    """

    folder: Path
    files: tuple[LabelledFile, ...]
    unknown_labels: Mapping[str, int]
    left_out: tuple[LeftOut, ...]


def holds_labels(folder: Path, labels: Sequence[str]) -> bool:
    """Return whether `find_labelled_files` would find a folder of any label."""
    return any((root / label).is_dir() for root in (folder, folder / "test") for label in labels)


def find_labelled_files(folder: Path, labels: Sequence[str]) -> LabelledFiles:
    """Find the images in `folder/LABEL/*` or, if there is a folder `test`, in `folder/test/LABEL/*`.

    A label may have no folder. A folder may have another name: the model cannot answer its label. Accents may be
    composed in one of the two and decomposed in the other, as on macOS.

    Raises:
        DatasetError: there is no such folder, or no image of any label in it, or folders of labels beside `test`.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, with a subfolder for each class")
    index_of = _indices(labels)
    if "test" not in labels and (folder / "test").is_dir():
        beside = [path.name for path in visible(folder) if index_of(path.name) is not None and path.is_dir()]
        if beside:
            raise DatasetError(
                f"{folder}: expected the folders of the model's labels in it or in its folder test, got both: "
                f"{', '.join(beside)} and test: move one of the two away, or name {folder / 'test'}"
            )
        folder = folder / "test"
    files: list[LabelledFile] = []
    unknown: dict[str, int] = {}
    found = scan_folder(folder)
    left_out = [LeftOut(path, "outside the class folders") for path in found.images]
    for each in found.left_out:
        if not each.path.is_dir():
            left_out.append(each)
        elif (index := index_of(each.path.name)) is None:
            unknown[each.path.name] = count_files(each.path) if each.path.is_symlink() else each.files
        else:
            content = scan_folder(each.path)
            left_out += content.left_out
            files += [(image, index) for image in content.images]
    repeats = find_repeats([file for file, _ in files])
    left_out += repeats.values()
    files = [each for each in files if each[0] not in repeats]
    if not files:
        raise DatasetError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}) in folders named after the model's labels, "
            f"{', '.join(labels)}; got the folders {', '.join(unknown) or 'none'}"
        )
    return LabelledFiles(folder, tuple(files), unknown, tuple(left_out))


def _indices(labels: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function from the name of a folder to the index of its label."""
    exact = {label: index for index, label in enumerate(labels)}
    composed = {unicodedata.normalize("NFC", label): index for label, index in exact.items()}
    return lambda name: exact.get(name, composed.get(unicodedata.normalize("NFC", name)))
