"""The command line of training: `python -m training.run [PRESET]`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pdeinfer.backend import import_keras
from pdeinfer.datasets import load_dataset
from pdeinfer.errors import PdeinferError, TrainingError
from pdeinfer.presets import PRESETS

EXAMPLES = """examples:
  python -m training.run
      train digits-pde on scikit-learn's bundled digits (a minute on two CPU cores)
  python -m training.run mnist-pde --data-dir data
      train on the MNIST files in data/ (or one level down)
  python -m training.run cifar10-global --data-dir data --epochs 100 --seed 1 --out runs/long
  python -m training.run cifar10-global --data-dir data --resume
      go on after an interruption, exactly where it stopped
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description="Train a network. What is not given is taken from the preset's recipe (training/recipes.py).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("preset", nargs="?", default="digits-pde", choices=PRESETS, metavar="PRESET",
                        help=f"one of {', '.join(PRESETS)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="folder with the data set's standard files (default: download them)")  # fmt: skip
    parser.add_argument("--epochs", type=_positive_int, metavar="N")
    parser.add_argument("--batch-size", type=_positive_int, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, shuffling, augmentation")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the training's folder (default: runs/PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on with the training in the folder")
    parser.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard into the folder")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"), default="float32",
                        help="of the computation; the weights stay float32 (default: %(default)s)")  # fmt: skip
    arguments = parser.parse_args(argv)
    arguments.out = arguments.out or Path("runs") / arguments.preset
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for a wrong argument or file, 130 for an interruption."""
    arguments = parse_arguments(argv)
    try:
        return _train(arguments)
    except PdeinferError as error:
        print(f"training: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nInterrupted; every finished epoch is kept. To go on: {_resume_command(arguments)}", file=sys.stderr)
        return 130


def _train(arguments: argparse.Namespace) -> int:
    import_keras()
    import keras

    from training import plots
    from training.checkpoints import RunFolder
    from training.fit import describe_run, device_name, fit, measure, precision

    folder = RunFolder(arguments.out)
    settings = _settings(arguments, folder)
    preset, recipe, seed = PRESETS[settings["preset"]], settings["recipe"], settings["seed"]
    dataset = load_dataset(recipe.dataset, arguments.data_dir)
    if not arguments.resume:
        folder.start(settings)
    print(
        f"{preset.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, seed {seed}, {settings['precision']}, "
        f"on {device_name()} ({keras.backend.backend()}), in {folder.path}"
    )
    callbacks = [keras.callbacks.TensorBoard(folder.path / "tensorboard")] if arguments.tensorboard else []
    verbose = 1 if sys.stdout.isatty() else 2  # a bar for people, a line an epoch for logs
    with precision(settings["precision"]):
        fit(preset, recipe, dataset, folder, seed=seed, verbose=verbose, callbacks=callbacks)
    metrics = {**settings, **describe_run(folder), **measure(folder, dataset.test)}
    folder.write_json("metrics.json", metrics)
    accuracy = f"{100 * metrics['test_accuracy']:.2f} % on {metrics['test_images']:,} test images"
    title = f"{preset.name}, seed {seed}: {accuracy}"
    plots.plot_learning_curves(folder.read_history(), title, folder.path / "learning-curves.png")
    plots.plot_confusion(metrics["confusion"], preset.labels, title, folder.path / "confusion-matrix.png")
    print(
        f"test accuracy {accuracy}, "
        f"{metrics['parameters']:,} parameters, best of {recipe.epochs} epochs by validation: {metrics['best_epoch']}; "
        f"{metrics['seconds']:.0f} s\nNext: pdeinfer export {folder.path} --format onnx --output build/{preset.name}"
    )
    return 0


def _settings(arguments: argparse.Namespace, folder: Any) -> dict[str, Any]:
    """Return what the training is (to be) started with: the recorded values where it is resumed."""
    from training.fit import git_commit
    from training.recipes import RECIPES

    given = {name: value for name in ("epochs", "batch_size") if (value := getattr(arguments, name)) is not None}
    if not arguments.resume:
        recipe = replace(RECIPES[arguments.preset], **given)
        return {
            "preset": arguments.preset,
            "seed": arguments.seed,
            "precision": arguments.precision,
            "recipe": recipe,
            "data_dir": arguments.data_dir and str(arguments.data_dir.resolve()),
            "git_commit": git_commit(),
        }
    settings = folder.settings()
    if settings["preset"] != arguments.preset:
        raise TrainingError(f"{folder.path} holds a training of {settings['preset']}, not of {arguments.preset}")
    for name, value in given.items():
        started = getattr(settings["recipe"], name)
        if value != started:
            raise TrainingError(f"{folder.path} was started with {name} {started}, and cannot go on with {value}")
    return settings


def _resume_command(arguments: argparse.Namespace) -> str:
    data_dir = f" --data-dir {arguments.data_dir}" if arguments.data_dir else ""
    return f"python -m training.run {arguments.preset}{data_dir} --out {arguments.out} --resume"


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
