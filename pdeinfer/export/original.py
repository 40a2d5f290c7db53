"""Reads what is exported: a training's folder or a `.keras` file, without trusting it."""

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pdeinfer.backend import import_keras, require_tensorflow
from pdeinfer.datasets import DatasetName, Split, load_test_split
from pdeinfer.errors import DatasetError, ExportError, MissingDependencyError
from pdeinfer.spec.presets import Preset

_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG_BYTES = 1 << 20
_MAX_WEIGHTS_BYTES = 1 << 30
_NOT_EXPORTABLE = "expected a .keras file that `python -m training.run` (a pdeinfer.nn.Classifier) wrote"


@dataclass(frozen=True)
class Original:
    """What is exported: the network, its source, and what its training recorded.

    Attributes:
        classifier: a `pdeinfer.nn.Classifier`, without its optimizer.
        training, metrics: what its training recorded, for the card; empty where the file stands alone.
        test: the data set's test images, or None where it is not at hand.
    """

    classifier: Any
    training: dict[str, Any]
    metrics: dict[str, Any]
    test: Split | None


def load_original(source: Path) -> Original:
    """Load a training's folder (its `model.keras`), or a `.keras` file (and the training's record beside it, if any).

    Raises:
        ExportError: there is no such file, or it is not one of a `pdeinfer.nn.Classifier`.
        BackendError: Keras runs on another backend than TensorFlow.
        MissingDependencyError: TensorFlow or Keras is not installed.
    """
    path = source / "model.keras" if source.is_dir() else source
    if not path.is_file():
        raise ExportError(f"{path}: no such file; {_NOT_EXPORTABLE}, or its folder")
    require_tensorflow()
    classifier = load_classifier(path)
    # run.json is written when a training starts. metrics.json repeats it when the training ends, with what was measured
    # of one file: of another, such as last-3.keras, that would not be true.
    record, measured = (_read_record(path.with_name(name)) for name in ("run.json", "metrics.json"))
    if record:
        _check_record(path.with_name("run.json"), record)
    if measured.get("model_sha256") == hashlib.sha256(path.read_bytes()).hexdigest():
        record |= measured
    metrics = {name: record.pop(name) for name in _METRICS if name in record}
    test = _load_test(record, classifier.preset)
    for name in _NOT_FOR_THE_CARD:
        record.pop(name, None)
    if len(classifier.preset.labels) > _MAX_CONFUSION_CLASSES:
        metrics.pop("confusion", None)
    return Original(classifier, record, metrics, test)


# Two paths of this machine; the classifier's preset is in the card itself, and so is the checksum of its model.keras.
_NOT_FOR_THE_CARD = ("data_dir", "init_dir", "teacher_source", "classifier", "model_sha256")
_MAX_CONFUSION_CLASSES = 100  # a larger matrix might not fit into a card
_METRICS = ("test_accuracy", "test_loss", "test_images", "validation_accuracy", "confusion")


def load_classifier(path: Path) -> Any:
    """Load a `pdeinfer.nn.Classifier` from a `.keras` file.

    The file is checked before Keras reads it: it may name no class but `Classifier`, which builds its layers from the
    preset alone. Keras then loads it in its safe mode.

    Raises:
        ExportError: the file is damaged, or holds another network.
        MissingDependencyError: Keras or its backend is not installed.
    """
    _check_archive(path)
    import_keras()
    import keras

    import pdeinfer.nn  # registers Classifier with Keras

    try:
        classifier = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and HDF5 raise whatever the damage leads to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{path}: cannot be loaded: {reason[0]}") from error
    if not isinstance(classifier, pdeinfer.nn.Classifier):
        raise ExportError(f"{path}: {_NOT_EXPORTABLE}; it holds a {type(classifier).__name__}")
    return classifier


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise ExportError(f"{path}: {_NOT_EXPORTABLE}; it is compressed as Keras compresses none")
            sizes = {member.filename: member.file_size for member in members}
            if sizes.keys() != _MEMBERS:
                raise ExportError(f"{path}: {_NOT_EXPORTABLE}; it holds {', '.join(sorted(sizes)) or 'nothing'}")
            if sizes["config.json"] > _MAX_CONFIG_BYTES or sizes["model.weights.h5"] > _MAX_WEIGHTS_BYTES:
                raise ExportError(f"{path}: larger than any network of this package")
            config = json.loads(archive.read("config.json"))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError) as error:
        raise ExportError(f"{path}: {_NOT_EXPORTABLE}; it is damaged or of another kind ({error})") from error
    names = ("module", "class_name", "registered_name")  # Keras goes by the last, where it knows it
    found = tuple(map(config.get, names)) if isinstance(config, dict) else config
    if found != ("pdeinfer.nn.networks", "Classifier", "pdeinfer>Classifier"):
        raise ExportError(f"{path}: {_NOT_EXPORTABLE}; it holds {found}")


def _read_record(path: Path) -> dict[str, Any]:
    """Return what `training.run` recorded, or nothing where the file stands alone."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not the record of a training: {error}") from error
    if not isinstance(record, dict):
        raise ExportError(f"{path}: expected a JSON object, got {type(record).__name__}")
    return record


def _check_record(path: Path, record: dict[str, Any]) -> None:
    recipe = record.get("recipe")
    dataset = recipe.get("dataset") if isinstance(recipe, dict) else None
    if dataset not in get_args(DatasetName) or not {"seed", "precision"} <= record.keys():
        raise ExportError(f"{path}: not the record of a training: expected its recipe, seed and precision")


def _load_test(record: dict[str, Any], preset: Preset) -> Split | None:
    data_dir = record.get("data_dir")
    try:
        return load_test_split(record, preset, data_dir and Path(data_dir))
    except (DatasetError, MissingDependencyError):
        return None  # none is recorded, or it was there when the network was trained and is not any more
