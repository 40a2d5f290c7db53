"""The command line of training: `python -m training.run [PRESET]`."""

import argparse
import shlex
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pdeinfer.backend import import_keras
from pdeinfer.datasets import Dataset, DatasetName, ImageFolder, StandardName, find_images, load_dataset
from pdeinfer.errors import DatasetError, PdeinferError, TrainingError
from pdeinfer.images.files import describe_left_out
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.networks import InputSpec
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import Outcome, TrainingRecord
from training.arguments import parse_arguments, resume_command
from training.onednn import prefer_onednn
from training.own_images import VALIDATION_FRACTION, own_name, own_preset

if TYPE_CHECKING:
    from training.distillation import Teacher  # these import Keras
    from training.recipes import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for a wrong argument or file, 130 for an interruption."""
    arguments = parse_arguments(argv)
    try:
        return _train(arguments)
    except (PdeinferError, OSError) as error:  # the latter: a full disk, no permission
        _warn(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        started = (arguments.out / "run.json").exists()
        advice = (
            f"every finished epoch is kept. To resume: {resume_command(arguments)}" if started else "nothing began."
        )
        print(f"\nInterrupted; {advice}", file=sys.stderr)
        return 130


def _train(arguments: argparse.Namespace) -> int:
    prefer_onednn()
    import_keras()
    import keras

    from training import plots
    from training.checkpoints import RunFolder
    from training.devices import data_parallel, device_name, list_devices
    from training.fit import describe_run, fit, measure, precision, training_splits
    from training.history import read_history
    from training.initialization import initialize
    from training.weight_transfer import transfer_weights

    folder = RunFolder(arguments.out)
    if arguments.resume:
        record, preset, recipe, dataset = _resume(arguments, folder.record())
    else:
        folder.check_is_free()
        record, preset, recipe, dataset = _begin(arguments)
    splits = training_splits(dataset, recipe)
    seed = record.seed
    scope = data_parallel(recipe.batch_size) if arguments.data_parallel else nullcontext()
    device = device_name(list_devices() if arguments.data_parallel else list_devices()[:1])
    callbacks = [keras.callbacks.TensorBoard(folder.path / "tensorboard")] if arguments.tensorboard else []
    with precision(record.precision), scope:
        if not arguments.resume:
            folder.start(record)
        print(
            f"{preset.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, seed {seed}, {record.precision}, "
            f"on {device} ({keras.backend.backend()}), in {folder.path}"
        )
        keras.utils.set_random_seed(seed)
        if folder.rows():
            model = folder.load_last()
        else:
            model, losses = initialize(preset, recipe, splits, seed=seed)
            if losses:
                print("validation losses of the initial weights:", ", ".join(f"{loss:.3f}" for loss in losses))
            if record.init is not None and record.init_dir is not None:
                package = ModelPackage.read(record.init_dir)
                if package.card.files[KERAS_FILE].sha256 != record.init["sha256"]:
                    raise TrainingError(f"{package.path} is not the model that {folder.path} was started with")
                print(transfer_weights(model, package))
        teacher = None if record.teacher_source is None else _load_teacher(record, preset)
        fit(model, recipe, splits, folder, seed=seed, callbacks=callbacks, teacher=teacher)
    outcome = Outcome.from_dict({**describe_run(folder), "device": device, **measure(folder, dataset)})
    folder.write_json("metrics.json", replace(record, outcome=outcome).to_dict())
    accuracy = f"{100 * outcome.test_accuracy:.2f} % on {outcome.test_images:,} test images"
    title = f"{preset.name}, seed {seed}: {accuracy}"
    plots.plot_learning_curves(read_history(folder.history), title, folder.path / "learning-curves.png")
    plots.plot_confusion(outcome.confusion or (), preset.labels, title, folder.path / "confusion-matrix.png")
    _print_outcome(outcome, accuracy, recipe.epochs)
    print(f"Next: {shlex.join(['pdeinfer', 'export', str(folder.path), '--output', f'build/{preset.name}'])}")
    return 0


def _print_outcome(outcome: Outcome, accuracy: str, epochs: int) -> None:
    chosen = "" if outcome.validation_accuracy is None else ", the best by validation"
    kept = f"epoch {outcome.best_epoch} of {epochs}{chosen}"
    print(f"test accuracy {accuracy}, {outcome.parameters:,} parameters, {kept}; {outcome.seconds:.0f} s")
    for layer, counts in (outcome.zero_fields or {}).items():
        fields = ", ".join(f"{symbol} {count}" for symbol, count in counts.items() if symbol != "channels")
        print(f"{layer}: channels whose field is zero on training images: {fields} of {counts['channels']}")


def _begin(arguments: argparse.Namespace) -> tuple[TrainingRecord, Preset, "Recipe", Dataset]:
    """Return the record of a new training, its network, its recipe and its data set."""
    from training.distillation import load_teacher
    from training.fit import git_commit
    from training.recipes import DISTILLATION_WEIGHT, RECIPES
    from training.weight_transfer import check_transferable

    preset, images, init = PRESETS[arguments.preset], None, None
    package = None if arguments.init is None else zoo.load(arguments.init)
    if package is not None:
        check_transferable(preset, package)
        init = {"model": package.card.preset.name, "sha256": package.card.files[KERAS_FILE].sha256}
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
        dataset, unreadable = _read_folder(folder, spec)
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
        git_commit=git_commit(),
        teacher=teacher,
        teacher_source=arguments.teacher and _absolute(arguments.teacher),
    )
    return record, preset, recipe, dataset


def _absolute(model: str) -> str:
    """Return the absolute path of a model, or a bundled model's name as it is."""
    return model if model in zoo.names() else str(Path(model).resolve())


def _resume(arguments: argparse.Namespace, record: TrainingRecord) -> tuple[TrainingRecord, Preset, "Recipe", Dataset]:
    """Return the record that a training was started with, its network, its recipe and its data set.

    Raises:
        TrainingError: the arguments contradict the record, or the folder of images has changed.
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
        return record, preset, recipe, _read_standard(recipe.dataset, data_dir)
    if data_dir is None:
        raise TrainingError(f"{arguments.out} was started on a folder of images: --data-dir must name it")
    folder = find_images(data_dir)
    if folder.labels != preset.labels or folder.record().splits != record.images.splits:
        raise TrainingError(f"{data_dir}: its files are not those that {arguments.out} was started with")
    dataset, unreadable = _read_folder(folder, spec)
    if unreadable != record.images.unreadable:
        raise TrainingError(
            f"{data_dir}: {unreadable} images cannot be read, and {record.images.unreadable} could not when "
            f"{arguments.out} was started"
        )
    return record, preset, recipe, dataset


def _network_and_recipe(record: TrainingRecord, folder: Path) -> tuple[Preset, "Recipe"]:
    from training.recipes import Recipe

    if record.classifier is None:
        raise TrainingError(f"{folder / 'run.json'}: not the record of a training: it has no classifier")
    try:
        return record.classifier, Recipe(**record.recipe)
    except TypeError as error:
        raise TrainingError(f"{folder / 'run.json'}: not the record of a training: recipe: {error}") from error


def _load_teacher(record: TrainingRecord, student: Preset) -> "Teacher":
    from training.distillation import load_teacher

    source = str(record.teacher_source)
    teacher, found = load_teacher(source, student)
    if found != record.teacher:
        raise TrainingError(f"{source} is not the teacher that the training was started with")
    return teacher


def _read_standard(name: DatasetName, data_dir: Path | None) -> Dataset:
    hint = "--image-size N trains on a folder of your own images"
    if name == "digits" and data_dir is not None:
        raise TrainingError(f"the digits come with scikit-learn and need no --data-dir; {hint}")
    try:
        return load_dataset(cast(StandardName, name), data_dir)
    except DatasetError as error:
        raise DatasetError(f"{error}; {hint}" if data_dir is not None else str(error)) from error


def _read_folder(folder: ImageFolder, spec: InputSpec) -> tuple[Dataset, int]:
    """Return the images of a folder and how many of them cannot be read; name these on stderr."""
    size = f"{spec.height}x{spec.width}x{spec.channels}"
    print(f"{folder.path}: {len(folder):,} images of {len(folder.labels)} classes, read as {size}")
    dataset, errors = folder.read(spec)
    for error in errors:
        _warn(f"left out: {error}")
    if errors:
        _warn(f"{len(errors):,} of {len(folder):,} images cannot be read and are left out")
    for line in describe_left_out(folder.left_out):
        _warn(line)
    return dataset, len(errors)


def _warn(message: str) -> None:
    print(f"training: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
