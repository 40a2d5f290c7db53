"""Loads a Classifier from an untrusted `.keras` file."""

import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras

from pdeinfer.errors import ExportError, PresetError
from pdeinfer.nn.networks import Classifier
from pdeinfer.spec.networks import DepthwiseConvolution, DepthwiseSum, SingleChannelNetwork
from pdeinfer.spec.presets import Preset

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES = 1 << 20
_MAX_WEIGHTS_BYTES = 1 << 30
_MAX_COMPRESSION = 4
_CLASS = ("pdeinfer.nn.networks", "Classifier", "pdeinfer>Classifier")
EXPECTED = "expected a .keras file that pdeinfer's training (a pdeinfer.nn.Classifier) wrote"


def load_classifier(path: Path) -> Classifier:
    """Load a Classifier from a `.keras` file, without its optimizer.

    The file is checked before Keras reads it, as `read_preset` does. Keras then loads it in safe mode.

    Raises:
        ExportError: the file is missing or damaged, or holds another network.
    """
    read_preset(path)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # the error that follows says more
            classifier: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and HDF5 raise errors of many kinds for damaged files
        raise ExportError(f"{path}: cannot be loaded: {first_line(error)}") from error
    if not isinstance(classifier, Classifier):
        raise ExportError(f"{path}: {EXPECTED}, got a {type(classifier).__name__}")
    return classifier


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, with the next if it ends in a colon.

    If the message is empty, return the name of the error's type.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first, *others = lines or [type(error).__name__]
    return " ".join([first, *others[: first.endswith(":")]])


def read_preset(path: Path) -> Preset:
    """Return the preset of the Classifier in a `.keras` file, after checking the file.

    The only class that the file may name is `Classifier`, which builds its layers only from the preset. Its sizes are
    limited, and so is the network: to the size of the file's weights.

    Raises:
        ExportError: the file is missing or damaged, or holds another network.
    """
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
    try:
        preset = Preset.from_dict(config["config"]["preset"])
    except PresetError as error:
        raise ExportError(f"{path}: cannot be loaded: {error}") from error
    except (KeyError, TypeError) as error:
        raise ExportError(f"{path}: cannot be loaded: its configuration has no preset") from error
    needed = 4 * _fewest_weights(preset)  # float32
    # Weights can hardly be compressed, and an archive may state any size.
    size = min(sizes["model.weights.h5"], _MAX_COMPRESSION * path.stat().st_size)
    if size < needed:
        raise ExportError(
            f"{path}: cannot be loaded: expected at least {needed} bytes of weights for the network that it describes, "
            f"got {size}"
        )
    return preset


def _fewest_weights(preset: Preset) -> int:
    """Return how many weights the network of a preset has at least, before it is built: those of its large layers."""
    spec, network, classes = preset.input, preset.network, len(preset.labels)
    if isinstance(network, SingleChannelNetwork):
        return (spec.height // network.pool_size) * (spec.width // network.pool_size) * spec.channels * classes
    control = 0
    if isinstance(network.control, DepthwiseConvolution):
        control = network.control.kernel_size**2
    elif isinstance(network.control, DepthwiseSum):
        control = network.control.num_terms * network.control.kernel_size**2
    widths, convolutions = network.widths, 2 * network.blocks_per_stage  # in a stage
    kernels = spec.channels * widths[0] + sum(
        width * (before + (convolutions - 1) * width)
        for before, width in zip((widths[0], *widths[:-1]), widths, strict=True)
    )
    return 9 * kernels + control * sum(widths[:-1]) + widths[-1] * classes
