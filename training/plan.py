"""Plans a training, new or resumed: its record, network, recipe and data."""

import argparse
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from pdeinfer.datasets import Dataset, DatasetName, ImageFolder, StandardName, find_images, load_dataset
from pdeinfer.errors import DatasetError, TrainingError
from pdeinfer.images.files import describe_left_out
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.nn import Classifier
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import ModelReference, TrainingRecord
from training.distillation import Teacher, load_teacher
from training.own_images import VALIDATION_FRACTION, own_name, own_preset
from training.recipes import DISTILLATION_WEIGHT, RECIPES, Recipe
from training.weight_transfer import WeightTransfer, check_transferable, transfer_weights


@dataclass(frozen=True, slots=True)
class Plan:
    """A training that can be run.

    Attributes:
        record: its settings, without an outcome.
        preset: the network that is trained, which for a folder of images is not the one asked for.
        recipe: how it is trained.
        dataset: the images.
    """

    record: TrainingRecord
    preset: Preset
    recipe: Recipe
    dataset: Dataset

    def transfer_weights(self, classifier: Classifier) -> WeightTransfer | None:
        """Copy the weights that the training starts from into a new network; return None if they are random.

        Raises:
            TrainingError: the model has changed since the training was started.
            ModelPackageError, ExportError: the model is damaged.
        """
        if self.record.init is None or self.record.init_dir is None:
            return None
        package = ModelPackage.read(self.record.init_dir)
        if package.card.files[KERAS_FILE].sha256 != self.record.init.sha256:
            raise TrainingError(f"{package.path} is not the model that the training was started with")
        return transfer_weights(classifier, package)

    def load_teacher(self) -> Teacher | None:
        """Return the teacher to distil, or None.

        Raises:
            TrainingError: the teacher has changed since the training was started.
            ModelNotFoundError, ModelPackageError, ExportError: the teacher cannot be loaded.
        """
        source = self.record.teacher_source
        if source is None:
            return None
        teacher, found = load_teacher(source, self.preset)
        if found != self.record.teacher:
            raise TrainingError(f"{source} is not the teacher that the training was started with")
        return teacher


def begin(arguments: argparse.Namespace) -> Plan:
    """Plan a new training.

    Raises:
        TrainingError: the arguments do not fit together, or the network cannot start from the weights asked for.
        DatasetError: the data set is missing or damaged.
        ModelNotFoundError, ModelPackageError, ExportError: the model to start from, or the teacher, cannot be loaded.
        PresetError: the network cannot take images of this size.
    """
    preset, images, init = PRESETS[arguments.preset], None, None
    package = None if arguments.init is None else zoo.load(arguments.init)
    if package is not None:
        check_transferable(preset, package)
        init = ModelReference(package.card.preset.name, package.card.files[KERAS_FILE].sha256)
    names = ("epochs", "batch_size", "mixup")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if package is not None:
        given["initializations"] = 1  # the weights are given
    if arguments.teacher is not None:
        given["distillation_weight"] = DISTILLATION_WEIGHT
    recipe = replace(RECIPES[arguments.preset], **given)
    if arguments.image_size is None:
        dataset = _read_standard(recipe.dataset, arguments.data_dir)
    else:
        recipe = replace(recipe, dataset="folder", validation_fraction=VALIDATION_FRACTION)
        height, width = arguments.image_size
        spec = replace(preset.input, height=height, width=width)
        folder = find_images(arguments.data_dir)
        dataset, unreadable = _read_folder(folder, spec, arguments.isolate)
        name = own_name(arguments.preset, arguments.data_dir)
        preset = own_preset(preset, name, folder.labels, dataset.train.images, spec)
        images = replace(folder.record(), unreadable=unreadable)
    teacher = None if arguments.teacher is None else load_teacher(arguments.teacher, preset)[1]
    record = TrainingRecord(
        preset=arguments.preset,
        classifier=preset,
        recipe=asdict(recipe),
        seed=arguments.seed or 0,
        precision=arguments.precision or "float32",
        data_dir=arguments.data_dir and str(arguments.data_dir.resolve()),
        images=images,
        init=init,
        init_dir=None if package is None else str(package.path.resolve()),
        git_commit=_git_commit(),
        teacher=teacher,
        teacher_source=arguments.teacher and _absolute(arguments.teacher),
    )
    return Plan(record, preset, recipe, dataset)


def _absolute(model: str) -> str:
    """Return the absolute path of a model, or a bundled model's name as it is."""
    return model if model in zoo.names() else str(Path(model).resolve())


def resume(arguments: argparse.Namespace, record: TrainingRecord) -> Plan:
    """Plan the rest of the training that a record describes.

    Raises:
        TrainingError: the arguments contradict the record, or the folder of images has changed.
        DatasetError: the data set is missing or damaged.
    """
    if record.preset != arguments.preset:
        raise TrainingError(f"{arguments.out} holds a training of {record.preset}, not of {arguments.preset}")
    preset, recipe = _network_and_recipe(record, arguments.out)
    spec = preset.input
    started = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "mixup": recipe.mixup,
        "teacher": record.teacher_source,
        "seed": record.seed,
        "precision": record.precision,
        "image_size": None if record.images is None else (spec.height, spec.width),
    }
    given = {name: value for name in started if (value := getattr(arguments, name)) is not None}
    if "teacher" in given:
        given["teacher"] = _absolute(given["teacher"])
    for name, value in given.items():
        if value != started[name]:
            raise TrainingError(
                f"{arguments.out} was started with {name} {started[name]}, and cannot resume with {value}"
            )
    data_dir = arguments.data_dir or (Path(record.data_dir) if record.data_dir else None)
    if record.images is None:
        return Plan(record, preset, recipe, _read_standard(recipe.dataset, data_dir))
    if data_dir is None:
        raise TrainingError(f"{arguments.out} was started on a folder of images: --data-dir must name it")
    folder = find_images(data_dir)
    if folder.labels != preset.labels or folder.record().splits != record.images.splits:
        raise TrainingError(f"{data_dir}: its files are not those that {arguments.out} was started with")
    dataset, unreadable = _read_folder(folder, spec, arguments.isolate)
    if unreadable != record.images.unreadable:
        raise TrainingError(
            f"{data_dir}: {unreadable} images cannot be read, and {record.images.unreadable} could not when "
            f"{arguments.out} was started"
        )
    return Plan(record, preset, recipe, dataset)


def _network_and_recipe(record: TrainingRecord, folder: Path) -> tuple[Preset, Recipe]:
    if record.classifier is None:
        raise TrainingError(f"{folder / 'run.json'}: not the record of a training: it has no classifier")
    try:
        return record.classifier, Recipe(**record.recipe)
    except TypeError as error:
        raise TrainingError(f"{folder / 'run.json'}: not the record of a training: recipe: {error}") from error


def _read_standard(name: DatasetName, data_dir: Path | None) -> Dataset:
    hint = "--image-size N trains on a folder of your own images"
    if name == "digits" and data_dir is not None:
        raise TrainingError(f"the digits come with scikit-learn and need no --data-dir; {hint}")
    try:
        return load_dataset(cast(StandardName, name), data_dir)
    except DatasetError as error:
        raise DatasetError(f"{error}; {hint}" if data_dir is not None else str(error)) from error


def _read_folder(folder: ImageFolder, spec: InputSpec, is_isolated: bool) -> tuple[Dataset, int]:
    """Return the images of a folder and how many of them cannot be read; name these on stderr."""
    size = f"{spec.height}x{spec.width}x{spec.channels}"
    print(f"{folder.path}: {len(folder):,} images of {len(folder.labels)} classes, read as {size}")
    with IsolatedDecoders() as decoders:
        decode = decoders.to_array if is_isolated else decoders.to_array_where_needed
        dataset, errors = folder.read(spec, decode)
    for error in errors:
        _warn(f"left out: {error}")
    if errors:
        _warn(f"{len(errors):,} of {len(folder):,} images cannot be read and are left out")
    for line in describe_left_out(folder.left_out):
        _warn(line)
    return dataset, len(errors)


def _warn(message: str) -> None:
    print(f"training: {message}", file=sys.stderr)


def _git_commit() -> str | None:
    """Return the commit of this code, with "-dirty" if a file has changed since; None outside a repository."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # fixed arguments
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # may be installed inside another project
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
