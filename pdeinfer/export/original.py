"""Loads the network to export, and what is known about it, from files that need not be trusted."""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdeinfer.backend import require_tensorflow
from pdeinfer.datasets import Split, load_test_split
from pdeinfer.errors import DatasetError, ExportError, MissingDependencyError, ModelPackageError
from pdeinfer.files import is_inside
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.package import KERAS_FILE, ONNX_FILE, ModelPackage
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import METRICS_FILE, RECORD_FILE, TrainingRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Original:
    """A trained network, and what is known about its training.

    Attributes:
        classifier: a `pdeinfer.nn.Classifier`, without its optimizer.
        record: of its training; None if it is not known. It has an outcome only if the training measured this very
            file.
        data_dir: where the data set is, or was, as the record says, or may be; None if that is not known.
        test: the data set's test images; None if they are not available.
        card: of the package that it is from, which holds for every file made from the same weights; None without one.
    """

    classifier: Any
    record: TrainingRecord | None
    data_dir: Path | None
    test: Split | None
    card: ModelCard | None = None

    def training_and_metrics(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the `training` and the `metrics` of a new card."""
        if self.card is not None:
            return dict(self.card.training), dict(self.card.metrics)
        return ({}, {}) if self.record is None else self.record.to_card()


def find_source(source: str | Path) -> Path:
    """Return the folder of a bundled model, as `pdeinfer.package.zoo` spells them, or else the path itself."""
    return zoo.load(source).path if os.fspath(source) in zoo.names() else Path(source)


def check_outside_packages(output: Path) -> None:
    """Raise ExportError if `output` lies in a model package, whose check would find files that it does not list."""
    for parent in Path(os.path.realpath(output)).parents:
        # Path.is_file raises OSError without permission.
        if all(os.path.isfile(parent / name) for name in (CARD_FILE, ONNX_FILE)):  # noqa: PTH113
            raise ExportError(f"expected an output outside the model package {parent}, got {output}")


def check_output(source: Path, output: Path) -> None:
    """Raise ExportError if `output` lies in a package, or in the photos that the network was trained on, as a class.

    Args:
        source: as in `load_original`.
    """
    check_outside_packages(output)
    folder = source if source.is_dir() else source.parent
    try:  # metrics.json first: the photos may have moved before the training was resumed
        record = _read_record(folder / METRICS_FILE) or _read_record(folder / RECORD_FILE)
    except ExportError:  # load_original says what that means
        return
    if record is None or record.images is None or record.data_dir is None:
        return
    if is_inside(output, Path(record.data_dir)):
        raise ExportError(
            f"expected an output outside the folder of photos, whose folders are its classes, got {output}"
        )


def load_original(source: Path, data_dir: Path | None = None) -> Original:
    """Load the `model.keras` of a training or a package, or a `.keras` file, with what is known about its training.

    That is the record beside it, if it describes this network, or the card of the package.

    Args:
        source: the folder of a training or a package, or a `.keras` file.
        data_dir: where the data set may be; without it there, it may still be where the record says.

    Raises:
        ExportError: there is no such file, it does not hold a `pdeinfer.nn.Classifier`, or the record in a training's
            folder is damaged.
        ModelPackageError: the package is damaged.
        BackendError: Keras runs on another backend than TensorFlow.
        MissingDependencyError: TensorFlow or Keras is not installed.
    """
    path = source / KERAS_FILE if source.is_dir() else source
    if not path.is_file():
        raise ExportError(
            f"{path}: no such file; expected a .keras file that training wrote, the folder of a training or package, "
            "or the name of a bundled model"
        )
    require_tensorflow()
    from pdeinfer.nn.loading import load_classifier  # imports Keras

    card = _read_card(path)
    classifier = load_classifier(path)
    preset = classifier.preset
    if card is None:
        record = _find_record(path, preset, is_lone=not source.is_dir())
    elif card.preset == preset:
        record = card.training_record
    else:
        raise ModelPackageError(f"{path.with_name(CARD_FILE)}: it describes another network than {KERAS_FILE}")
    test = _load_test(record, data_dir, preset)
    if test is None and record is not None and record.data_dir is not None:
        data_dir = Path(record.data_dir)
        test = _load_test(record, data_dir, preset)
    return Original(classifier, record, data_dir, test, card)


def _read_card(path: Path) -> ModelCard | None:
    """Return the card of the package that a file is the `model.keras` of, after comparing its checksum."""
    if path.name != KERAS_FILE or not path.with_name(CARD_FILE).is_file():
        return None
    package = ModelPackage.read(path.parent)
    package.read_file(KERAS_FILE)
    return package.card


def _find_record(path: Path, preset: Preset, *, is_lone: bool) -> TrainingRecord | None:
    """Return the record of the training that wrote a file.

    Args:
        is_lone: the file was named, not the folder of a training: files beside it may be of anything.
    """

    def read(name: str) -> TrainingRecord | None:
        try:
            return _read_record(path.with_name(name))
        except ExportError as error:
            if not is_lone:
                raise
            logger.warning("ignored: %s", error)
            return None

    # When the training ends, metrics.json repeats run.json and adds what was measured on model.keras. It does not
    # describe other files, such as last-3.keras.
    finished = read(METRICS_FILE)
    if finished is not None and finished.measured(hashlib.sha256(path.read_bytes()).hexdigest()):
        return finished
    started = read(RECORD_FILE)
    if started is None or _describes(started, preset):
        return started
    logger.warning("ignored: %s: the record of a training of another network", path.with_name(RECORD_FILE))
    return None


def _describes(record: TrainingRecord, preset: Preset) -> bool:
    if record.classifier is None:  # written by an earlier version
        return record.preset == preset.name
    return record.classifier == preset


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
