"""The model package: a folder with `card.json`, `model.onnx` and other files that the card lists with their checksums.

digits-pde/
    card.json        the model, its training, its metrics, and the checksum of every other file
    card.json.sha256 the checksum of card.json, as sha256sum writes it; packages made by earlier versions have none
    README.md        the same for people, with the model's limits
    model.onnx       the network; prediction needs this file only
    model.int8.onnx  the network with 8-bit convolutions, on request
    fields.onnx      the network, cut at its PDE layers, for `pdeinfer inspect`; missing if there are none
    reference.npz    images and the original's answers, to compare with; packages made by earlier versions have none
    config.json, preprocessor_config.json   the labels and the input as Hugging Face's tools read them; may be missing
    model.keras      the trained original, for verification, fine-tuning and exporting again
    saved_model/     the network as a TensorFlow SavedModel, on request
    model.tflite     the network for LiteRT, on request
    model.int8.tflite  the same with PDE layers in float32 and the rest in 8-bit integers, on request, if it is accurate
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph.wire import read_metadata
from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.card_json import MAX_CARD_BYTES, parse_card
from pdeinfer.package.files import open_folder, open_regular
from pdeinfer.package.metadata import describes, metadata

# The names of the tensors in `model.onnx`.
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
FEATURES_NAME = "features"  # what the last layer takes; packages made by earlier versions have none

ONNX_FILE = "model.onnx"
FIELDS_FILE = "fields.onnx"
DIGEST_FILE = f"{CARD_FILE}.sha256"
KERAS_FILE = "model.keras"
REFERENCE_FILE = "reference.npz"
LITERT_FILE = "model.tflite"
LITERT_INT8_FILE = "model.int8.tflite"
LITERT_INT8 = "litert-int8"  # its key in a card's variants

# Older packages may also have model.half.onnx, which is listed and checked but no longer used.
Precision: TypeAlias = Literal["float32", "int8"]
MODEL_FILES: dict[Precision, str] = {"float32": ONNX_FILE, "int8": "model.int8.onnx"}

MAX_FILE_BYTES = 1 << 28  # of each file, which is read as a whole


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model package on disk.

    Attributes:
        path: its folder, absolute.
        card: as it was read.
        digest: the SHA-256 of `card.json`, in hexadecimal. As the card lists the checksums of the other files, packages
            with one digest are equal in every bit that `read_file` returns.
    """

    path: Path
    card: ModelCard
    digest: str

    @classmethod
    def read(cls, folder: str | Path) -> "ModelPackage":
        """Read the card of the package in `folder`. The other files are read and checked when they are needed.

        Raises:
            ModelPackageError: the card is missing, damaged, changed or of another format.
        """
        path = Path(folder).absolute()  # the process may change its working directory
        try:
            with open_folder(path) as read:
                content = read(CARD_FILE, MAX_CARD_BYTES)
                try:
                    expected = read(DIGEST_FILE, MAX_CARD_BYTES)
                except FileNotFoundError:  # written by an earlier version
                    expected = None
        except OSError as error:
            name = DIGEST_FILE if str(error.filename).endswith(DIGEST_FILE) else CARD_FILE
            raise ModelPackageError(f"{path} is not a model package: {name}: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        if expected is not None and expected != digest_line(digest):
            raise ModelPackageError(
                f"{path / CARD_FILE} is damaged, or was changed after the export: {DIGEST_FILE} has another checksum"
            )
        try:
            card = ModelCard.from_dict(parse_card(content))
            if ONNX_FILE not in card.files:
                raise ModelPackageError(f"files must list {ONNX_FILE}")
        except ModelPackageError as error:
            raise ModelPackageError(f"{path / CARD_FILE}: {error}") from error
        return cls(path, card, digest)

    def read_file(self, name: str) -> bytes:
        """Return the content of a file that the card lists, after comparing the checksum of these bytes.

        Raises:
            ModelPackageError: the card does not list the file, or it is missing, damaged or outside the folder.
        """
        record = self.card.files.get(name)
        if record is None:
            raise ModelPackageError(f"{self.path / CARD_FILE} does not list {name!r}, only {sorted(self.card.files)}")
        path = self.path / name
        try:
            # Unlike Path.resolve, realpath raises OSError for a link to itself before Python 3.13 too.
            file_path, folder = Path(os.path.realpath(path, strict=True)), self.path.resolve()
            if not (file_path.is_relative_to(folder) or _is_blob(file_path, folder)):
                raise ModelPackageError(f"{path} is a link to a file outside the package")
            with open_regular(path) as (file, size):
                if size != record.bytes:
                    raise ModelPackageError(f"{path} is damaged: expected {record.bytes} bytes, got {size}")
                if size > MAX_FILE_BYTES:
                    raise ModelPackageError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}")
                content = file.read(size)
        except OSError as error:
            raise ModelPackageError(f"{path} cannot be read: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != record.sha256:
            raise ModelPackageError(f"{path} is damaged: expected the SHA-256 {record.sha256}, got {digest}")
        return content

    def read_network(self, name: str) -> bytes:
        """Return the content of an ONNX file after comparing its checksum, and its metadata with the card.

        Raises:
            ModelPackageError: as `read_file` does; or the file's labels or preset are not those of the card.
        """
        content = self.read_file(name)
        try:
            stated = read_metadata(content)
        except ModelPackageError as error:
            raise ModelPackageError(f"{self.path / name}: {error}") from error
        for key in metadata(self.card.preset):
            if key in stated and not describes(key, stated[key], self.card.preset):
                raise ModelPackageError(
                    f"{self.path / name} does not match its card: the {key} in its metadata differs"
                )
        return content

    def copy_files(self, folder: Path, *names: str) -> None:
        """Write files into another folder, where they stay as they were when their checksums were compared.

        Raises:
            ModelPackageError: as `read_file` does.
        """
        for name in names:
            (folder / name).write_bytes(self.read_file(name))

    def read_model(self, precision: Precision = "float32") -> bytes:
        """Return the content of the ONNX file in a precision, as `read_network` does.

        Raises:
            ModelPackageError: the package has no such file, or as `read_network` does.
            ValueError: `precision` is unknown.
        """
        if precision not in list(MODEL_FILES):  # also if it cannot be hashed
            raise ValueError(f"precision must be one of {', '.join(MODEL_FILES)}, not {precision!r}")
        if precision not in self.precisions:
            raise ModelPackageError(
                f"{self.path} has no {precision} file, only {', '.join(self.precisions)}: "
                "`pdeinfer export --calibrate DIR` adds an int8 file"
            )
        return self.read_network(MODEL_FILES[precision])

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in which the package has an ONNX file."""
        return tuple(precision for precision, name in MODEL_FILES.items() if name in self.card.files)

    def verify_checksums(self) -> None:
        """Check every file that the card lists, and that the folder contains no others.

        Files and folders below it whose names begin with a dot, such as `.git` and `.cache`, are ignored.

        Raises:
            ModelPackageError: a file is missing, damaged, outside the folder, or not in the card.
        """
        for name in self.card.files:
            self.read_file(name)
        found = {name for name in files_in(self.path) if not name.startswith(".") and "/." not in name}
        unlisted = sorted(found - self.card.files.keys() - {CARD_FILE, DIGEST_FILE})
        if unlisted:
            raise ModelPackageError(f"{self.path} contains files that {CARD_FILE} does not list: {', '.join(unlisted)}")


def _is_blob(file: Path, folder: Path) -> bool:
    """Return whether a package in the cache of Hugging Face holds a link to this file.

    `ROOT/snapshots/REVISION/model.onnx` is a link to `ROOT/blobs/HASH` there.
    """
    return file.parent.name == "blobs" and folder.is_relative_to(file.parent.with_name("snapshots"))


def files_in(folder: Path) -> Iterator[str]:
    """Yield the relative POSIX path of every file and every link below `folder`."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def digest_line(digest: str) -> bytes:
    """Return the content of `card.json.sha256`, which `sha256sum --check` reads."""
    return f"{digest}  {CARD_FILE}\n".encode()
