"""Finds the images in a folder whose subfolders are named after a model's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdeinfer.datasets.image_folder import LabelledFile
from pdeinfer.errors import DatasetError
from pdeinfer.images.files import LeftOut, count_files, scan_folder
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

    A label may have no folder. A folder may have another name: the model cannot answer its label.

    Raises:
        DatasetError: there is no such folder, or no image of any label in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, with a subfolder for each class")
    if "test" not in labels and (folder / "test").is_dir():
        folder = folder / "test"
    files: list[LabelledFile] = []
    unknown: dict[str, int] = {}
    found = scan_folder(folder)
    left_out = [LeftOut(path, "outside the class folders") for path in found.images]
    for each in found.left_out:
        if not each.path.is_dir():
            left_out.append(each)
        elif each.path.name not in labels:
            unknown[each.path.name] = count_files(each.path) if each.path.is_symlink() else each.files
        else:
            content = scan_folder(each.path)
            left_out += content.left_out
            files += [(image, labels.index(each.path.name)) for image in content.images]
    if not files:
        raise DatasetError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}) in folders named after the model's labels, "
            f"{', '.join(labels)}; got the folders {', '.join(unknown) or 'none'}"
        )
    return LabelledFiles(folder, tuple(files), unknown, tuple(left_out))
