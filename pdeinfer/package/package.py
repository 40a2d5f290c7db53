"""The model package: a folder with `card.json`, `model.onnx` and the files that the card lists by checksum.

digits-pde/
    card.json      what the model is, how it was trained, what was measured, the checksum of every other file
    README.md      the same for people, with the model's limits
    model.onnx     all that prediction runs
    fields.onnx    what its PDE layers compute, for `pdeinfer inspect`; not there where it has none
    model.keras    the trained original, for re-export, verification and fine-tuning
    saved_model/   TensorFlow's format, on request
    model.int8.onnx, model.half.onnx   the network in less precision, on request
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from pdeinfer.errors import ModelPackageError
from pdeinfer.package.card import CARD_FILE, FileRecord, ModelCard

# The names of the tensors in `model.onnx`.
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"

ONNX_FILE = "model.onnx"
FIELDS_FILE = "fields.onnx"
KERAS_FILE = "model.keras"

Precision: TypeAlias = Literal["float32", "half", "int8"]
MODEL_FILES: dict[Precision, str] = {"float32": ONNX_FILE, "half": "model.half.onnx", "int8": "model.int8.onnx"}

MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model package on disk: its folder and its card."""

    path: Path
    card: ModelCard

    @classmethod
    def read(cls, folder: str | Path) -> "ModelPackage":
        """Read the card of the package at `folder`; the other files are read, and checked, when asked for.

        Raises:
            ModelPackageError: there is no card, or it is damaged or of another format.
        """
        path = Path(folder)
        try:
            with (path / CARD_FILE).open("rb") as file:
                content = file.read(MAX_CARD_BYTES + 1)
        except OSError as error:
            raise ModelPackageError(f"{path} is no model package: {CARD_FILE}: {error.strerror}") from error
        if len(content) > MAX_CARD_BYTES:
            raise ModelPackageError(f"{path / CARD_FILE} is larger than {MAX_CARD_BYTES} bytes")
        try:
            card = ModelCard.from_dict(json.loads(content, parse_constant=_reject_constant))
            if ONNX_FILE not in card.files:
                raise ModelPackageError(f"files must list {ONNX_FILE}")
        except ModelPackageError as error:
            raise ModelPackageError(f"{path / CARD_FILE}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ModelPackageError(f"{path / CARD_FILE} is not JSON: {error}") from error
        return cls(path, card)

    def read_file(self, name: str) -> bytes:
        """Return the content of a file that the card lists: the very bytes whose checksum was compared.

        Raises:
            ModelPackageError: the card does not list it, or it is missing, damaged or outside the folder.
        """
        record = self.card.files.get(name)
        if record is None:
            raise ModelPackageError(f"{self.path / CARD_FILE} lists no file {name!r}, only {sorted(self.card.files)}")
        path = self.path / name
        try:
            if not path.resolve(strict=True).is_relative_to(self.path.resolve()):
                raise ModelPackageError(f"{path} is a link to a file outside the package")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != record.bytes:
                    raise ModelPackageError(f"{path} is damaged: {record.bytes} bytes expected, {size} found")
                content = file.read(size)
        except OSError as error:
            raise ModelPackageError(f"{path} cannot be read: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != record.sha256:
            raise ModelPackageError(f"{path} is damaged: SHA-256 {record.sha256} expected, {digest} found")
        return content

    def read_model(self, precision: Precision = "float32") -> bytes:
        """Return the ONNX file of a precision, checked as `read_file` does.

        Raises:
            ModelPackageError: the package has none of that precision; or as `read_file` does.
            ValueError: `precision` is unknown.
        """
        if precision not in MODEL_FILES:
            raise ValueError(f"precision must be one of {', '.join(MODEL_FILES)}, not {precision!r}")
        if precision not in self.precisions:
            options = "--int8 --calibrate DIR" if precision == "int8" else f"--{precision}"
            raise ModelPackageError(
                f"{self.card.preset.name} is not there in precision {precision!r}, only in "
                f"{', '.join(self.precisions)}: `pdeinfer export {options}` makes it"
            )
        return self.read_file(MODEL_FILES[precision])

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of which the package has an ONNX file."""
        return tuple(precision for precision, name in MODEL_FILES.items() if name in self.card.files)

    def verify_checksums(self) -> None:
        """Check every file that the card lists, and that the folder holds no other.

        Raises:
            ModelPackageError: a file is missing, damaged, outside the folder, or not in the card.
        """
        for name in self.card.files:
            self.read_file(name)
        unlisted = sorted(set(_files_in(self.path)) - self.card.files.keys() - {CARD_FILE})
        if unlisted:
            raise ModelPackageError(f"{self.path} holds files that {CARD_FILE} does not list: {', '.join(unlisted)}")


@contextmanager
def new_package(output: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Give a new folder beside `output` to fill in, and rename it to `output` at the end of the block.

    The block puts the files there and ends with `write_card`. On any error nothing of it is left, and a package that
    was at `output` before is untouched.

    Args:
        output: the package's folder. force: replace the package that is there.

    Raises:
        ModelPackageError: `output` exists without `force`; or it is anything but a model package or an empty folder,
            which `force` does not replace either; or it cannot be written.
    """
    output = Path(output).resolve()
    _check_free(output, force)
    token = secrets.token_hex(4)
    folder = output.with_name(f".{output.name}.{token}.new")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise ModelPackageError(f"{output} cannot be written: {error.strerror}") from error
    try:
        yield folder
        if not (folder / CARD_FILE).is_file():
            raise ModelPackageError(f"a model package needs a {CARD_FILE}; none was written for {output}")
        _check_free(output, force)
        try:
            _move(folder, output, aside=output.with_name(f".{output.name}.{token}.old"))
        except OSError as error:
            raise ModelPackageError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write `card.json` for the files in `folder`, with the record of each, and return the card as written.

    Raises:
        ModelPackageError: `model.onnx` is missing, a file has a name that a package cannot hold, or the card is not
            JSON (a NaN, say) or too large.
    """
    files = {name: _record(folder / name) for name in sorted(_files_in(folder)) if name != CARD_FILE}
    if ONNX_FILE not in files:
        raise ModelPackageError(f"a model package needs a {ONNX_FILE}; {folder} has none")
    card = replace(card, files=files)
    try:
        content = json.dumps(card.to_dict(), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ModelPackageError(f"the card cannot be written as JSON: {error}") from error
    if len(content) > MAX_CARD_BYTES:
        raise ModelPackageError(f"the card has {len(content)} bytes, more than {MAX_CARD_BYTES}")
    (folder / CARD_FILE).write_bytes(content)
    return card


def _check_free(output: Path, force: bool) -> None:
    """Raise ModelPackageError unless a new package may take the place of `output`."""
    if not output.exists():
        return
    if not force:
        raise ModelPackageError(f"{output} exists; --force replaces it")
    if not output.is_dir() or (not (output / CARD_FILE).is_file() and any(output.iterdir())):
        raise ModelPackageError(
            f"{output} is not a model package (no {CARD_FILE}): it is not replaced, remove it first"
        )


def _move(folder: Path, output: Path, aside: Path) -> None:
    """Rename `folder` to `output`, whose former content is restored on failure and removed on success."""
    if not output.exists():
        folder.rename(output)
        return
    output.rename(aside)
    try:
        folder.rename(output)
    except BaseException:
        aside.rename(output)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _files_in(folder: Path) -> Iterator[str]:
    """Yield the relative POSIX path of every file, and of every link, under `folder`."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(hashlib.sha256(content).hexdigest(), len(content))


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
