"""Plans a training, new or resumed: its record, network, recipe and data."""

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
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import RECORD_FILE, ImagesRecord, ModelReference, TrainingRecord
from training.automatic import choose_recipe, choose_side, describe_recipe
from training.distillation import Teacher, load_teacher
from training.image_folder import (
    VALIDATION_FRACTION,
    adapt_preset,
    read_images,
    sample_sizes,
    summarize,
    warn_of_other_splits,
)
from training.options import TrainingOptions
from training.packages import load_package
from training.recipes import DISTILLATION_WEIGHT, Recipe, recipe_for, standard_dataset
from training.weight_transfer import WeightTransfer, check_transferable, transfer_weights


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


def begin(options: TrainingOptions) -> Plan:
    """Plan a new training.

    Raises:
        TrainingError: the options do not fit together, or the network has too many time steps to be exported, or
            cannot start from the weights asked for.
        DatasetError: the data set is missing or damaged.
        ModelNotFoundError, ModelPackageError, ExportError: the teacher cannot be loaded.
        PresetError: the network cannot take images of this size.
    """
    asked, package = options.network.preset, options.network.package
    init = None
    if package is not None:
        check_transferable(asked, package)
        init = ModelReference(package.card.preset.name, package.card.files[KERAS_FILE].sha256)
    _check_steps(asked)
    images = None
    if options.image_folder is None:
        preset, recipe, dataset = _plan_standard(options)
    else:
        preset, recipe, dataset, images = _plan_image_folder(options, options.image_folder)
    policy = options.precision or "float32"
    teacher, reference = (
        (None, None) if options.teacher is None else load_teacher(options.teacher, preset, policy=policy)
    )
    record = TrainingRecord(
        preset=asked.name,
        classifier=preset,
        recipe=asdict(recipe),
        seed=options.seed or 0,
        precision=policy,
        data_dir=None if options.data_dir is None else str(options.data_dir.resolve()),
        images=images,
        init=init,
        init_dir=None if package is None else str(package.path.resolve()),
        git_commit=_git_commit(),
        teacher=reference,
        teacher_source=options.teacher and _absolute(options.teacher),
    )
    return Plan(record, preset, recipe, dataset, teacher)


def _plan_standard(options: TrainingOptions) -> tuple[Preset, Recipe, Dataset]:
    """Return the network, recipe and images of a training on a standard data set."""
    asked = options.network.preset
    recipe = replace(recipe_for(asked), dataset=standard_dataset(asked), **_set_by_options(options))
    _check_crop_padding(recipe.crop_padding, asked.input)
    preset = asked if options.name is None else replace(asked, name=options.name)
    return preset, recipe, _read_standard(recipe.dataset, options.data_dir)


def _plan_image_folder(options: TrainingOptions, path: Path) -> tuple[Preset, Recipe, Dataset, ImagesRecord]:
    """Return the network, recipe and images of a training on a folder, and their record; print what is chosen.

    The network has the folder's classes, and is normalised by its images.
    """
    asked, package = options.network.preset, options.network.package
    folder = find_images(path, VALIDATION_FRACTION)
    sizes = sample_sizes(folder, asked.input)
    height, width = options.image_size or _choose_size(options, sizes)
    spec = replace(asked.input, height=height, width=width)
    _check_crop_padding(options.recipe.get("crop_padding", 0), spec)  # otherwise an eighth of the side, or 0
    preset = replace(asked, labels=folder.labels, input=spec)
    print(*summarize(folder, sizes), sep="\n")
    for model in _learnt_models(options):
        warn_of_other_splits(model, folder)
    dataset, unreadable = read_images(folder, spec, options.out, is_isolated=options.isolate)
    train = len(dataset.train)
    recipe = replace(
        choose_recipe(recipe_for(asked), train, min(height, width), options.recipe.get("epochs")),
        dataset="folder",
        validation_fraction=VALIDATION_FRACTION,
        **_set_by_options(options),
    )
    start = "random weights" if package is None else f"the weights of {package.card.preset.name}"
    print(f"{asked.name}'s network for {height}x{width} pixels, from {start}; options change what was chosen:")
    print(*describe_recipe(recipe, train, options.recipe), sep="\n")
    preset = adapt_preset(preset, options.name or options.network.training_name(path), dataset.train.images)
    return preset, recipe, dataset, replace(folder.record(), unreadable=unreadable)


def _set_by_options(options: TrainingOptions) -> dict[str, Any]:
    """Return the values of the recipe that follow from the options."""
    values = dict(options.recipe)
    if options.network.package is not None:
        values["initializations"] = 1  # the weights are given
    if options.teacher is not None:
        values["distillation_weight"] = DISTILLATION_WEIGHT
    return values


def _learnt_models(options: TrainingOptions) -> list[ModelPackage]:
    """Return the packages that the network learns from: the one that it starts from, and the teacher's."""
    models = [] if options.network.package is None else [options.network.package]
    if options.teacher is not None and not options.teacher.endswith(".keras"):
        models.append(load_package(options.teacher))
    return models


def _check_steps(preset: Preset) -> None:
    """Raise TrainingError for a network that could not be exported after hours of training."""
    most = most_steps(preset)
    if preset.pde is not None and most is not None and preset.pde.num_steps > most:
        raise TrainingError(
            f"{preset.name}: expected num_steps of at most {most}, got {preset.pde.num_steps}: a model package holds "
            f"the time steps of all PDE layers, and has at most {MAX_NODES:,} nodes"
        )


def _check_crop_padding(padding: int, spec: InputSpec) -> None:
    """Raise TrainingError if crops might hold nothing of their image, only black."""
    side = min(spec.height, spec.width)
    if padding >= side:
        raise TrainingError(f"--crop-padding: expected less than {side}, the shorter side of the images, got {padding}")


def _choose_size(options: TrainingOptions, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width that the file of a preset names, or else one that fits the images' sizes."""
    if options.preset_file is not None:
        spec = options.network.preset.input
        return spec.height, spec.width
    side = choose_side(sizes)
    return side, side


def _absolute(model: str) -> str:
    """Return the absolute path of a model, or a bundled model's name as it is."""
    return model if model in zoo.names() else str(Path(model).resolve())


def resume(options: TrainingOptions, record: TrainingRecord) -> Plan:
    """Plan the rest of the training that a record describes.

    Raises:
        TrainingError: the options contradict the record, or the folder of images or the teacher has changed.
        DatasetError: the data set is missing or damaged.
        ModelNotFoundError, ModelPackageError, ExportError: the teacher cannot be loaded.
    """
    if options.source in PRESETS and options.source != record.preset:
        raise TrainingError(f"{options.out} holds a training of {record.preset}, not of {options.source}")
    preset, recipe = _network_and_recipe(record, options.out)
    spec = preset.input
    started = {
        **asdict(recipe),
        "name": preset.name,
        "seed": record.seed,
        "precision": record.precision,
        "image_size": None if record.images is None else (spec.height, spec.width),
    }
    given = {
        **options.recipe,
        "name": options.name,
        "seed": options.seed,
        "precision": options.precision,
        "image_size": options.image_size,
    }
    for name, value in given.items():
        if value not in (None, started[name]):
            raise TrainingError(
                f"{options.out} was started with {name} {started[name]}, and cannot resume with {value}"
            )
    teacher = None
    if record.teacher_source is not None:
        source = record.teacher_source if options.teacher is None else _absolute(options.teacher)
        teacher, _ = load_teacher(source, preset, recorded=record.teacher)
        record = replace(record, teacher_source=source)
    elif options.teacher is not None:
        raise TrainingError(f"{options.out} was started without a teacher, and cannot resume with {options.teacher}")
    data_dir = options.data_dir or (Path(record.data_dir) if record.data_dir else None)
    if options.data_dir is not None:  # the data set may have moved
        record = replace(record, data_dir=str(options.data_dir.resolve()))
    if record.images is None:
        return Plan(record, preset, recipe, _read_standard(recipe.dataset, data_dir), teacher)
    if data_dir is None:
        raise TrainingError(f"{options.out} was started on a folder of images: --data-dir must name it")
    folder = find_recorded_images(data_dir, record.images)
    splits = record.images.splits
    is_same = folder.labels == preset.labels and folder.files.keys() == splits.keys()
    if not is_same or not all(folder.has_recorded(name, split) for name, split in splits.items()):
        raise TrainingError(
            f"{data_dir}: its files are not those that {options.out} was started with: names or contents have changed"
        )
    dataset, unreadable = read_images(folder, spec, options.out, is_isolated=options.isolate)
    if unreadable != record.images.unreadable:
        raise TrainingError(
            f"{data_dir}: {unreadable} images cannot be read, and {record.images.unreadable} could not when "
            f"{options.out} was started"
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
