"""Measures a model package on labelled images, using only its ONNX files."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pdeinfer.checks.evaluation import Evaluation, Example
from pdeinfer.checks.labelled_images import FileImages, LabelledImages, SplitImages
from pdeinfer.checks.metrics import accuracy_interval, calibration, class_metrics, confusion_matrix, import_metrics
from pdeinfer.datasets import (
    comes_in_files,
    find_labelled_files,
    find_recorded_folder,
    holds_files,
    holds_labels,
    load_test_split,
)
from pdeinfer.errors import DatasetError, ImageError, ModelPackageError
from pdeinfer.images.files import LeftOut
from pdeinfer.package import zoo
from pdeinfer.package.card import ModelCard
from pdeinfer.package.package import Precision
from pdeinfer.predictor import Predictor

PASSES = 3
EXAMPLES = 24

_CHUNK_BYTES = 2**26  # of decoded images in memory at a time


def evaluate(model: str | Path, data_dir: Path | None = None, precision: Precision = "float32") -> Evaluation:
    """Classify labelled images with ONNX Runtime; download nothing.

    The images are the test images of the data set that the model was trained on, if `data_dir` is None or holds that
    data set. Otherwise they are all images in `data_dir`, a folder with a subfolder for each class, or in its folder
    "test".

    Args:
        model: a bundled model's name, or a package's folder.
        data_dir: the folder with the images or the data set; None for the digits.
        precision: as for `pdeinfer.Predictor`.

    Raises:
        ModelNotFoundError: no model has this name.
        ModelPackageError: the package is damaged, has no file of this precision, or computes NaN or infinity.
        MissingDependencyError: ONNX Runtime or scikit-learn is not installed.
        DatasetError: the card names no data set and `data_dir` is None; the test images are missing, damaged or
            different; or `data_dir` has no readable image of a label of the model.
    """
    package = zoo.load(model)
    card, labels = package.card, package.card.preset.labels
    import_metrics()  # without scikit-learn, fail before the work
    found = _find_images(card, data_dir)
    with Predictor(package, precision=precision) as predictor:
        info = predictor.info()
        indices, probabilities, speed, unreadable = _classify(predictor, found.source)
    if not len(indices):
        raise DatasetError(f"{data_dir}: no image can be read: {unreadable[0].reason}")
    truth, predicted = found.source.labels[indices], probabilities.argmax(axis=1)
    scores = probabilities.max(axis=1)
    order = np.argsort(-scores, kind="stable")

    def examples(is_chosen: NDArray[np.bool_]) -> tuple[Example, ...]:
        """Return the chosen images with the highest scores."""
        return tuple(
            Example(
                found.source.name(indices[i]), int(indices[i]), labels[truth[i]], labels[predicted[i]], float(scores[i])
            )
            for i in order[is_chosen[order]][:EXAMPLES]
        )

    return Evaluation(
        model=card.preset.name,
        precision=precision,
        labels=labels,
        folder=found.folder,
        confusion=confusion_matrix(truth, predicted, len(labels)),
        card_accuracy=card.test_accuracy(precision) if found.folder is None else None,
        accuracy_interval=accuracy_interval(int((truth == predicted).sum()), len(truth)),
        classes=class_metrics(truth, predicted, labels),
        calibration=calibration(truth, probabilities),
        images_per_second=speed,
        batch_size=info.batch_size,
        device=info.device,
        threads=info.threads,
        pde_layers=info.pde_layers,
        source=found.source,
        mistakes=examples(truth != predicted),
        confident=examples(truth == predicted),
        unknown_labels=found.unknown_labels,
        unreadable=len(unreadable),
        left_out=(*found.left_out, *unreadable),
    )


@dataclass(frozen=True, slots=True)
class _FoundImages:
    """The images to classify, with the attributes of `Evaluation` that describe where they are from."""

    source: LabelledImages
    folder: str | None = None
    unknown_labels: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()


def _find_images(card: ModelCard, data_dir: Path | None) -> _FoundImages:
    preset, record = card.preset, card.training_record
    dataset = None if record is None else record.dataset
    if data_dir is not None:
        if record is not None and dataset == "folder":
            own = find_recorded_folder(record, preset, data_dir)
            if own is not None:
                return _FoundImages(FileImages(own.files["test"], preset.input), left_out=own.left_out)
        # The digits have no files: a folder holds other images.
        if not comes_in_files(dataset) or (
            not holds_files(dataset, data_dir) and holds_labels(data_dir, preset.labels)
        ):
            files = find_labelled_files(data_dir, preset.labels)
            source = FileImages(files.files, preset.input)
            return _FoundImages(source, str(files.folder), files.unknown_labels, files.left_out)
    return _FoundImages(SplitImages(load_test_split(record, preset, data_dir)))


def _classify(
    predictor: Predictor, source: LabelledImages
) -> tuple[NDArray[np.int64], NDArray[np.float32], float, list[LeftOut]]:
    """Classify the images, some at a time.

    Returns:
        The indices of the readable images, their probabilities, the images per second, and the unreadable images.
    """
    spec, labels = predictor.info().input, predictor.info().labels
    size = max(predictor.info().batch_size, _CHUNK_BYTES // (spec.height * spec.width * spec.channels))
    indices: list[int] = []
    probabilities = [np.empty((0, len(labels)), np.float32)]
    unreadable: list[LeftOut] = []
    speed = 0.0
    count = len(source.labels)
    for start in range(0, count, size):
        part = range(start, min(start + size, count))
        images = []
        for index, image in zip(part, source.read(part), strict=True):
            if isinstance(image, ImageError):
                unreadable.append(LeftOut(Path(source.name(index)), str(image).removeprefix(f"{source.name(index)}: ")))
            else:
                indices.append(index)
                images.append(image)
        if images:
            batch = np.stack(images)
            speed = speed or _speed(predictor, batch)
            answers = predictor.predict_proba(batch)
            if not np.isfinite(answers).all():
                raise ModelPackageError(f"the network {predictor.info().model} computed NaN or infinity")
            probabilities.append(answers)
    return np.array(indices, np.int64), np.concatenate(probabilities), speed, unreadable


def _speed(predictor: Predictor, images: NDArray[np.uint8]) -> float:
    """Return the images per second: the median of `PASSES` after a warm-up."""
    predictor.predict_proba(images[: predictor.info().batch_size])
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        predictor.predict_proba(images)
        seconds.append(time.perf_counter() - started)
    return len(images) / statistics.median(seconds)
