"""Plans a training, new or resumed: its record, network, recipe and data."""

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from pdeinfer.datasets import Dataset, DatasetName, StandardName, find_images, find_recorded_images, load_dataset
from pdeinfer.errors import DatasetError, TrainingError
from pdeinfer.export.steps import most_steps
from pdeinfer.graph.wire import MAX_NODES
from pdeinfer.nn import Classifier
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import RECORD_FILE, ModelReference, TrainingRecord
from training.automatic import choose_recipe, choose_side, describe_recipe
from training.distillation import Teacher, load_teacher
from training.own_images import (
    PHOTO_MODEL,
    VALIDATION_FRACTION,
    own_name,
    own_preset,
    read_images,
    sample_sizes,
    summarize,
    warn_of_other_splits,
)
from training.packages import load_package
from training.preset_file import read_preset
from training.recipes import DISTILLATION_WEIGHT, Recipe, recipe_for, standard_dataset
from training.weight_transfer import WeightTransfer, check_transferable, transfer_weights

_NO_INIT = "none"
_RECIPE_OPTIONS = (
    "epochs", "batch_size", "learning_rate", "flip", "crop_padding", "mixup", "patience", "balance",
    "validation_fraction",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """A training that can be run.

    Attributes:
        record: its settings, without an outcome.
        preset: the network that is trained, which for a folder of images is not the one asked for.
        recipe: how it is trained.
        dataset: the images.
        teacher: to distil, or None.
    """

    record: TrainingRecord
    preset: Preset
    recipe: Recipe
    dataset: Dataset
    teacher: Teacher | None

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


def begin(arguments: argparse.Namespace) -> Plan:
    """Plan a new training.

    Raises:
        TrainingError: the arguments do not fit together, or the network has too many time steps to be exported, or
            cannot start from the weights asked for.
        DatasetError: the data set is missing or damaged.
        ModelNotFoundError, ModelPackageError, ExportError: the model to start from, or the teacher, cannot be loaded.
        PresetError: the file of the preset is damaged, or the network cannot take images of this size.
    """
    asked, package = _choose_network(arguments)
    _check_steps(asked)
    preset, images = asked, None
    init = None
    given = {name: value for name in _RECIPE_OPTIONS if (value := getattr(arguments, name)) is not None}
    fixed: dict[str, Any] = {}
    if package is not None:
        init = ModelReference(package.card.preset.name, package.card.files[KERAS_FILE].sha256)
        fixed["initializations"] = 1  # the weights are given
    if arguments.teacher is not None:
        fixed["distillation_weight"] = DISTILLATION_WEIGHT
    recipe = recipe_for(asked)
    if arguments.photos is None:
        recipe = replace(recipe, dataset=standard_dataset(asked), **given, **fixed)
        dataset = _read_standard(recipe.dataset, arguments.data_dir)
        if arguments.name is not None:
            preset = replace(preset, name=arguments.name)
    else:
        folder = find_images(arguments.photos, VALIDATION_FRACTION)
        sizes = sample_sizes(folder, preset.input)
        height, width = arguments.image_size or _choose_size(asked, arguments, sizes)
        spec = replace(preset.input, height=height, width=width)
        preset = replace(preset, labels=folder.labels, input=spec)
        print(*summarize(folder, sizes), sep="\n")
        for model in _learnt_models(arguments, package):
            warn_of_other_splits(model, folder)
        dataset, unreadable = read_images(folder, spec, arguments.out, is_isolated=arguments.isolate)
        train = len(dataset.train)
        recipe = replace(choose_recipe(recipe, train, min(height, width), arguments.epochs), dataset="folder",
                         validation_fraction=VALIDATION_FRACTION, **given, **fixed)  # fmt: skip
        start = "random weights" if package is None else f"the weights of {package.card.preset.name}"
        print(f"{asked.name}'s network for {height}x{width} pixels, from {start}; options change what was chosen:")
        print(*describe_recipe(recipe, train, given), sep="\n")
        name = arguments.name or own_name(asked.name, arguments.photos)
        preset = own_preset(preset, name, dataset.train.images)
        images = replace(folder.record(), unreadable=unreadable)
    policy = arguments.precision or "float32"
    teacher, reference = (
        (None, None) if arguments.teacher is None else load_teacher(arguments.teacher, preset, policy=policy)
    )
    data_dir = arguments.photos or arguments.data_dir
    record = TrainingRecord(
        preset=asked.name,
        classifier=preset,
        recipe=asdict(recipe),
        seed=arguments.seed or 0,
        precision=policy,
        data_dir=data_dir and str(data_dir.resolve()),
        images=images,
        init=init,
        init_dir=None if package is None else str(package.path.resolve()),
        git_commit=_git_commit(),
        teacher=reference,
        teacher_source=arguments.teacher and _absolute(arguments.teacher),
    )
    return Plan(record, preset, recipe, dataset, teacher)


def _learnt_models(arguments: argparse.Namespace, start: ModelPackage | None) -> list[ModelPackage]:
    """Return the packages that the network learns from: the one that it starts from, and the teacher's."""
    models = [] if start is None else [start]
    if arguments.teacher is not None and not arguments.teacher.endswith(".keras"):
        models.append(load_package(arguments.teacher))
    return models


def _choose_network(arguments: argparse.Namespace) -> tuple[Preset, ModelPackage | None]:
    """Return the preset whose network is trained, and the package whose weights it starts from.

    A folder of photos without a preset gets the network and the weights of a bundled model, or of the one that
    `--init` names.
    """
    if arguments.preset_file is not None:
        asked: Preset | None = read_preset(arguments.preset_file)
    elif arguments.preset is not None:
        asked = PRESETS[arguments.preset]
    else:
        asked = None
    source = arguments.init or (PHOTO_MODEL if asked is None else _NO_INIT)
    if source == _NO_INIT:
        return asked or PRESETS[PHOTO_MODEL], None
    package = load_package(source)
    if asked is None:
        asked = package.card.preset
    check_transferable(asked, package)
    return asked, package


def _check_steps(preset: Preset) -> None:
    """Raise TrainingError for a network that could not be exported after hours of training."""
    most = most_steps(preset)
    if preset.pde is not None and most is not None and preset.pde.num_steps > most:
        raise TrainingError(
            f"{preset.name}: expected num_steps of at most {most}, got {preset.pde.num_steps}: a model package holds "
            f"the time steps of all PDE layers, and has at most {MAX_NODES:,} nodes"
        )


def _choose_size(asked: Preset, arguments: argparse.Namespace, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width that the file of a preset names, or else one that fits the images' sizes."""
    if arguments.preset_file is not None:
        return asked.input.height, asked.input.width
    side = choose_side(sizes)
    return side, side


def _absolute(model: str) -> str:
    """Return the absolute path of a model, or a bundled model's name as it is."""
    return model if model in zoo.names() else str(Path(model).resolve())


def resume(arguments: argparse.Namespace, record: TrainingRecord) -> Plan:
    """Plan the rest of the training that a record describes.

    Raises:
        TrainingError: the arguments contradict the record, or the folder of images or the teacher has changed.
        DatasetError: the data set is missing or damaged.
        ModelNotFoundError, ModelPackageError, ExportError: the teacher cannot be loaded.
    """
    if arguments.source in PRESETS and arguments.source != record.preset:  # without SOURCE, `preset` is a default
        raise TrainingError(f"{arguments.out} holds a training of {record.preset}, not of {arguments.source}")
    preset, recipe = _network_and_recipe(record, arguments.out)
    spec = preset.input
    started = {
        **{name: getattr(recipe, name) for name in _RECIPE_OPTIONS},
        "name": preset.name,
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
    teacher = None
    if record.teacher_source is not None:
        teacher, _ = load_teacher(record.teacher_source, preset, recorded=record.teacher)
    named = arguments.photos or arguments.data_dir
    data_dir = named or (Path(record.data_dir) if record.data_dir else None)
    if named is not None:  # the data set may have moved
        record = replace(record, data_dir=str(named.resolve()))
    if record.images is None:
        return Plan(record, preset, recipe, _read_standard(recipe.dataset, data_dir), teacher)
    if data_dir is None:
        raise TrainingError(f"{arguments.out} was started on a folder of images: --data-dir must name it")
    folder = find_recorded_images(data_dir, record.images)
    if folder.labels != preset.labels or folder.record().splits != record.images.splits:
        raise TrainingError(f"{data_dir}: its files are not those that {arguments.out} was started with")
    dataset, unreadable = read_images(folder, spec, arguments.out, is_isolated=arguments.isolate)
    if unreadable != record.images.unreadable:
        raise TrainingError(
            f"{data_dir}: {unreadable} images cannot be read, and {record.images.unreadable} could not when "
            f"{arguments.out} was started"
        )
    return Plan(record, preset, recipe, dataset, teacher)


def _network_and_recipe(record: TrainingRecord, folder: Path) -> tuple[Preset, Recipe]:
    if record.classifier is None:
        raise TrainingError(f"{folder / RECORD_FILE}: not the record of a training: it has no classifier")
    try:
        return record.classifier, Recipe(**record.recipe)
    except TypeError as error:
        raise TrainingError(f"{folder / RECORD_FILE}: not the record of a training: recipe: {error}") from error


def _read_standard(name: DatasetName, data_dir: Path | None) -> Dataset:
    hint = "--image-size N trains on a folder of your own images"
    if name == "digits" and data_dir is not None:
        raise TrainingError(f"the digits come with scikit-learn and need no --data-dir; {hint}")
    try:
        return load_dataset(cast(StandardName, name), data_dir)
    except DatasetError as error:
        raise DatasetError(f"{error}; {hint}" if data_dir is not None else str(error)) from error


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
