"""Writes model packages."""

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from pdeinfer.errors import ModelPackageError
from pdeinfer.files import new_folder
from pdeinfer.package.card import CARD_FILE, FileRecord, ModelCard
from pdeinfer.package.card_json import MAX_CARD_BYTES, parse_card
from pdeinfer.package.package import DIGEST_FILE, MAX_FILE_BYTES, ONNX_FILE, digest_line, files_in


def new_package(output: str | Path, *, force: bool = False) -> AbstractContextManager[Path]:
    """Write a model package as `new_folder` does, with ModelPackageError; the block ends with `write_card`."""
    return new_folder(output, CARD_FILE, ModelPackageError, force=force)


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write `card.json` with the checksums of the files in `folder`, and its own; return the card as written.

    Raises:
        ModelPackageError: `model.onnx` is missing, a file is too large or has a name that is not allowed in a package,
            or the card is too large or has a value that `parse_card` refuses, such as a NaN.
    """
    names = sorted(set(files_in(folder)) - {CARD_FILE, DIGEST_FILE})
    files = {name: _record(folder / name) for name in names}
    for name, record in files.items():
        if record.bytes > MAX_FILE_BYTES:
            raise ModelPackageError(f"{name}: expected at most {MAX_FILE_BYTES} bytes, got {record.bytes}")
    if ONNX_FILE not in files:
        raise ModelPackageError(f"a model package needs a {ONNX_FILE}, but {folder} has none")
    card = replace(card, files=files)
    try:
        content = json.dumps(card.to_dict(), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ModelPackageError(f"the card cannot be written as JSON: {error}") from error
    if len(content) > MAX_CARD_BYTES:
        raise ModelPackageError(f"expected a card of at most {MAX_CARD_BYTES} bytes, got {len(content)}")
    parse_card(content)
    (folder / CARD_FILE).write_bytes(content)
    (folder / DIGEST_FILE).write_bytes(digest_line(hashlib.sha256(content).hexdigest()))
    return card


def _record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(hashlib.sha256(content).hexdigest(), len(content))
