"""The command line of training: `python -m training.run [PRESET]`."""

import argparse
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pdeinfer.backend import import_keras
from pdeinfer.datasets import Dataset, DatasetName, ImageFolder, StandardName, find_images, load_dataset
from pdeinfer.errors import DatasetError, PdeinferError, TrainingError
from pdeinfer.images.files import describe_left_out
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE, ModelPackage
from pdeinfer.spec.presets import PRESETS, InputSpec
from training.arguments import parse_arguments, resume_command
from training.onednn import prefer_onednn
from training.own_images import VALIDATION_FRACTION, own_name, own_preset


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
        advice = f"every finished epoch is kept. To go on: {resume_command(arguments)}" if started else "nothing began."
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
    from training.initial_weights import inherit
    from training.starts import choose_start

    folder = RunFolder(arguments.out)
    if arguments.resume:
        settings, dataset = _resume(arguments, folder.settings())
    else:
        folder.check_is_free()
        settings, dataset = _begin(arguments)
    splits = training_splits(dataset, settings.recipe)
    preset, recipe, seed = settings.classifier, settings.recipe, settings.seed
    scope = data_parallel(recipe.batch_size) if arguments.data_parallel else nullcontext()
    device = device_name(list_devices() if arguments.data_parallel else list_devices()[:1])
    callbacks = [keras.callbacks.TensorBoard(folder.path / "tensorboard")] if arguments.tensorboard else []
    with precision(settings.precision), scope:
        if not arguments.resume:
            folder.start(settings)
        print(
            f"{preset.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, seed {seed}, {settings.precision}, "
            f"on {device} ({keras.backend.backend()}), in {folder.path}"
        )
        keras.utils.set_random_seed(seed)
        if folder.rows():
            model = folder.load_last()
        else:
            model, losses = choose_start(preset, recipe, splits, seed=seed)
            if losses:
                print("validation losses of the starts:", ", ".join(f"{loss:.3f}" for loss in losses))
            if settings.init_dir is not None:
                package = ModelPackage.read(settings.init_dir)
                if package.card.files[KERAS_FILE].sha256 != settings.init["sha256"]:
                    raise TrainingError(f"{package.path} is not the model that {folder.path} was started with")
                print(inherit(model, package))
        teacher = settings.teacher_source and _load_teacher(settings)
        fit(model, recipe, splits, folder, seed=seed, callbacks=callbacks, teacher=teacher)
    metrics = {**settings.to_dict(), **describe_run(folder), "device": device, **measure(folder, dataset.test)}
    folder.write_json("metrics.json", metrics)
    accuracy = f"{100 * metrics['test_accuracy']:.2f} % on {metrics['test_images']:,} test images"
    title = f"{preset.name}, seed {seed}: {accuracy}"
    plots.plot_learning_curves(read_history(folder.history), title, folder.path / "learning-curves.png")
    plots.plot_confusion(metrics["confusion"], preset.labels, title, folder.path / "confusion-matrix.png")
    validated = "validation_accuracy" in metrics
    kept = f"epoch {metrics['best_epoch']} of {recipe.epochs}{', the best by validation' if validated else ''}"
    print(f"test accuracy {accuracy}, {metrics['parameters']:,} parameters, {kept}; {metrics['seconds']:.0f} s")
    print(f"Next: {shlex.join(['pdeinfer', 'export', str(folder.path), '--output', f'build/{preset.name}'])}")
    return 0


def _begin(arguments: argparse.Namespace) -> tuple[Any, Dataset]:
    """Return the settings of a new training, and its data set."""
    from training.distillation import load_teacher
    from training.fit import git_commit
    from training.initial_weights import check_inheritance
    from training.recipes import DISTILLATION_WEIGHT, RECIPES
    from training.settings import Settings

    preset, images, init = PRESETS[arguments.preset], None, None
    package = None if arguments.init is None else zoo.load(arguments.init)
    if package is not None:
        check_inheritance(preset, package)
        init = {"model": package.card.preset.name, "sha256": package.card.files[KERAS_FILE].sha256}
    names = ("epochs", "batch_size", "mixup")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if package is not None:
        given["starts"] = 1  # the weights are there
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
        images = {**folder.record(), "unreadable": unreadable}
    teacher = None if arguments.teacher is None else load_teacher(arguments.teacher, preset)[1]
    settings = Settings(
        preset=arguments.preset,
        classifier=preset,
        recipe=recipe,
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
    return settings, dataset


def _absolute(model: str) -> str:
    """Return the path of a model in absolute terms; a bundled model's name as it is."""
    return model if model in zoo.names() else str(Path(model).resolve())


def _resume(arguments: argparse.Namespace, settings: Any) -> tuple[Any, Dataset]:
    """Return the settings that a training was started with, and its data set.

    Raises:
        TrainingError: other settings are asked for now, or the folder of images holds others.
    """
    if settings.preset != arguments.preset:
        raise TrainingError(f"{arguments.out} holds a training of {settings.preset}, not of {arguments.preset}")
    spec, recipe = settings.classifier.input, settings.recipe
    started = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "mixup": recipe.mixup,
        "teacher": settings.teacher_source,
        "seed": settings.seed,
        "precision": settings.precision,
        "image_size": None if settings.images is None else (spec.height, spec.width),
    }
    given = {name: value for name in started if (value := getattr(arguments, name)) is not None}
    if "teacher" in given:
        given["teacher"] = _absolute(given["teacher"])
    for name, value in given.items():
        if value != started[name]:
            raise TrainingError(
                f"{arguments.out} was started with {name} {started[name]}, and cannot go on with {value}"
            )
    data_dir = arguments.data_dir or (settings.data_dir and Path(settings.data_dir))
    if settings.images is None:
        return settings, _read_standard(recipe.dataset, data_dir)
    folder = find_images(data_dir)
    if folder.labels != settings.classifier.labels or folder.record()["splits"] != settings.images["splits"]:
        raise TrainingError(f"{data_dir}: its files are not those that {arguments.out} was started with")
    dataset, unreadable = _read_folder(folder, spec)
    if unreadable != settings.images["unreadable"]:
        raise TrainingError(
            f"{data_dir}: {unreadable} images cannot be read, and {settings.images['unreadable']} could not when "
            f"{arguments.out} was started"
        )
    return settings, dataset


def _load_teacher(settings: Any) -> Any:
    from training.distillation import load_teacher

    teacher, record = load_teacher(settings.teacher_source, settings.classifier)
    if record != settings.teacher:
        raise TrainingError(f"{settings.teacher_source} is not the teacher that the training was started with")
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
    """Return the images of a folder, and how many of them cannot be read; say which these are."""
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
