"""Loads the network to export, and what is known about it, from files that need not be trusted."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdeinfer.backend import require_tensorflow
from pdeinfer.datasets import Split, is_inside, load_test_split
from pdeinfer.errors import DatasetError, ExportError, MissingDependencyError
from pdeinfer.package.package import KERAS_FILE
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import TrainingRecord


@dataclass(frozen=True)
class Original:
    """A trained network, and what is known about its training.

    Attributes:
        classifier: a `pdeinfer.nn.Classifier`, without its optimizer.
        record: of its training; None for a file on its own. It has an outcome only if the training measured this
            very file.
        data_dir: where the data set was, as the record says; None without one.
        test: the data set's test images; None if they are not available.
    """

    classifier: Any
    record: TrainingRecord | None
    data_dir: Path | None
    test: Split | None


def check_output(source: Path, output: Path) -> None:
    """Raise ExportError if `output` lies in the folder of images that the network was trained on, as a class of it.

    Args:
        source: as in `load_original`.
    """
    path = (source if source.is_dir() else source.parent) / "run.json"
    record = _read_record(path) if path.is_file() else None
    if record is None or record.images is None or record.data_dir is None:
        return
    if is_inside(output, Path(record.data_dir)):
        raise ExportError(
            f"expected --output outside the folder of photos, whose folders are its classes, got {output}"
        )


def load_original(source: Path) -> Original:
    """Load the `model.keras` of a training's folder, or a `.keras` file, with the training's record if there is one.

    Raises:
        ExportError: there is no such file, it does not hold a `pdeinfer.nn.Classifier`, or the record is damaged.
        BackendError: Keras runs on another backend than TensorFlow.
        MissingDependencyError: TensorFlow or Keras is not installed.
    """
    path = source / KERAS_FILE if source.is_dir() else source
    if not path.is_file():
        raise ExportError(
            f"{path}: no such file; expected a .keras file that training wrote, or the folder of a training"
        )
    require_tensorflow()
    from pdeinfer.nn.loading import load_classifier  # imports Keras

    classifier = load_classifier(path)
    record = _read_record(path.with_name("run.json"))
    # When the training ends, metrics.json repeats run.json and adds what was measured on model.keras. It does not
    # describe other files, such as last-3.keras.
    finished = _read_record(path.with_name("metrics.json"))
    if finished is not None and finished.measured(hashlib.sha256(path.read_bytes()).hexdigest()):
        record = finished
    data_dir = None if record is None or record.data_dir is None else Path(record.data_dir)
    return Original(classifier, record, data_dir, _load_test(record, data_dir, classifier.preset))


def _read_record(path: Path) -> TrainingRecord | None:
    """Read the record of a training; return None if there is no file."""
    try:
        return TrainingRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not the record of a training: {error}") from error


def _load_test(record: TrainingRecord | None, data_dir: Path | None, preset: Preset) -> Split | None:
    try:
        return load_test_split(record, preset, data_dir)
    except (DatasetError, MissingDependencyError):
        return None  # no data set is recorded, or it is no longer where it was
