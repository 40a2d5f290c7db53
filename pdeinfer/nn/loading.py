"""Loads a Classifier from an untrusted `.keras` file."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras

from pdeinfer.errors import ExportError
from pdeinfer.nn.networks import Classifier

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES = 1 << 20
_MAX_WEIGHTS_BYTES = 1 << 30
_CLASS = ("pdeinfer.nn.networks", "Classifier", "pdeinfer>Classifier")
EXPECTED = "expected a .keras file that pdeinfer's training (a pdeinfer.nn.Classifier) wrote"


def load_classifier(path: Path) -> Classifier:
    """Load a Classifier from a `.keras` file, without its optimizer.

    The file is checked before Keras reads it: the only class that it may name is `Classifier`, which builds its layers
    only from the preset, and its sizes are limited. Keras then loads it in safe mode.

    Raises:
        ExportError: the file is missing or damaged, or holds another network.
    """
    _check_archive(path)
    try:
        classifier: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and HDF5 raise errors of many kinds for damaged files
        raise ExportError(f"{path}: cannot be loaded: {first_line(error)}") from error
    if not isinstance(classifier, Classifier):
        raise ExportError(f"{path}: {EXPECTED}, got a {type(classifier).__name__}")
    return classifier


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise ExportError(f"{path}: {EXPECTED}, got an archive with a compression that Keras never uses")
            sizes = {member.filename: member.file_size for member in members}
            if sizes.keys() != _MEMBERS:
                found = ", ".join(sorted(sizes)) or "no members"
                raise ExportError(f"{path}: {EXPECTED}, got an archive with {found}")
            if sizes["config.json"] > _MAX_CONFIG_BYTES or sizes["model.weights.h5"] > _MAX_WEIGHTS_BYTES:
                raise ExportError(
                    f"{path}: expected at most {_MAX_CONFIG_BYTES} bytes of configuration and {_MAX_WEIGHTS_BYTES} of "
                    f"weights, got {sizes['config.json']} and {sizes['model.weights.h5']}"
                )
            config = json.loads(archive.read("config.json"))
    except ExportError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError) as error:
        raise ExportError(f"{path}: {EXPECTED}, got a damaged file or one of another kind ({error})") from error
    names = ("module", "class_name", "registered_name")  # Keras prefers the last if it is registered
    described = tuple(map(config.get, names)) if isinstance(config, dict) else config
    if described != _CLASS:
        raise ExportError(f"{path}: {EXPECTED}, got {described}")
