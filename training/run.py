"""Runs a training: `pdeinfer train [SOURCE]`, or `python -m training.run [SOURCE]`."""

import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pdeinfer.backend import import_keras
from pdeinfer.cli.main import main as run_command
from pdeinfer.cli.output import print_error
from pdeinfer.errors import PdeinferError
from pdeinfer.spec.training_record import METRICS_FILE, RECORD_FILE, Outcome
from training.arguments import parse_arguments
from training.environment import prefer_onednn, select_device
from training.options import TrainingOptions

if TYPE_CHECKING:  # they import Keras
    from collections.abc import Sequence

    from pdeinfer.datasets import Split
    from pdeinfer.nn import Classifier
    from training.history import Row
    from training.plan import Plan
    from training.recipes import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for a wrong argument or file, 130 for an interruption.

    Raises:
        BrokenPipeError: nobody reads the output any more.
    """
    options = parse_arguments(argv)
    try:
        return _train(options)
    except BrokenPipeError:  # the reader of the output, such as `head`, has stopped reading
        if _has_begun(options):
            print(f"pdeinfer: the output was closed; {_how_to_resume(options)}", file=sys.stderr)
        raise
    except (PdeinferError, OSError) as error:  # the latter: a full disk, no permission
        print_error(error)
        if isinstance(error, OSError) and _has_begun(options):
            print(f"pdeinfer: {_how_to_resume(options)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = _how_to_resume(options) if _has_begun(options) else "nothing began."
        print(f"\nInterrupted; {advice}", file=sys.stderr)
        return 130


def _has_begun(options: TrainingOptions) -> bool:
    return os.path.exists(options.out / RECORD_FILE)  # noqa: PTH110  # Path.exists raises OSError for a long name


def _how_to_resume(options: TrainingOptions) -> str:
    return f"every finished epoch is kept. To resume: {options.resume_command()}"


def _train(options: TrainingOptions) -> int:
    prefer_onednn()
    select_device(options.device)
    import_keras()
    import keras

    from training import plots
    from training.callbacks import make_callbacks
    from training.checkpoints import RunFolder
    from training.devices import check_device, data_parallel, device_name, list_devices
    from training.fit import dtype_policy, fit, training_splits
    from training.outcome import measure
    from training.plan import begin, resume

    check_device(options.device)
    callbacks = make_callbacks(options.callbacks, options.out / "tensorboard" if options.tensorboard else None)
    folder = RunFolder(options.out)
    if options.resume:
        plan = resume(options, folder.record())
    else:
        folder.check_is_free()
        plan = begin(options)
    record, preset, recipe, seed = plan.record, plan.preset, plan.recipe, plan.record.seed
    splits = training_splits(plan.dataset, recipe)
    scope = data_parallel(recipe.batch_size) if options.data_parallel else nullcontext()
    device = device_name(list_devices() if options.data_parallel else list_devices()[:1])
    with dtype_policy(record.precision), scope:
        print(
            f"{preset.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, seed {seed}, {record.precision}, "
            f"on {device} ({keras.backend.backend()}), in {folder.path}"
        )
        keras.utils.set_random_seed(seed)
        new = None if folder.rows() else _new_network(plan, splits)
        if not options.resume:
            folder.start(record)
        with folder.locked():
            model = folder.load_last() if new is None else new
            fit(model, recipe, splits, folder, seed=seed, callbacks=callbacks, teacher=plan.teacher)
    outcome = measure(folder, plan.dataset, device)
    folder.write_json(METRICS_FILE, replace(record, outcome=outcome).to_dict())
    accuracy = f"{100 * outcome.test_accuracy:.2f} % on {outcome.test_images:,} test images"
    title = f"{preset.name}, seed {seed}: {accuracy}"
    rows = folder.rows()
    plots.plot_learning_curves(rows, title, folder.path / "learning-curves.png")
    plots.plot_confusion(outcome.confusion or (), preset.labels, title, folder.path / "confusion-matrix.png")
    _print_outcome(outcome, accuracy, rows, recipe)
    _print_next_steps(folder.path, f"build/{preset.name}", options.image_folder)
    _print_warnings(rows, recipe, outcome)
    return 0


def _new_network(plan: "Plan", splits: "tuple[Split, Split]") -> "Classifier":
    """Return a network with the weights that the training starts from, and print how they were chosen."""
    from training.initialization import initialize

    if plan.recipe.initializations > 1:
        print(f"trying {plan.recipe.initializations} initial weights for an epoch each")
    model, losses = initialize(plan.preset, plan.recipe, splits, seed=plan.record.seed)
    if losses:
        print("validation losses of the initial weights:", ", ".join(f"{loss:.3f}" for loss in losses))
    if (transfer := plan.transfer_weights(model)) is not None:
        print(transfer)
    return model


def _print_warnings(rows: "Sequence[Row]", recipe: "Recipe", outcome: Outcome) -> None:
    from training.history import diverged_since, has_stagnated

    if len(rows) < recipe.epochs and not has_stagnated(rows, recipe.patience):
        print(f"pdeinfer: a callback stopped the training after {len(rows)} of {recipe.epochs} epochs", file=sys.stderr)
    epoch = diverged_since(rows)
    if epoch is not None or outcome.test_loss is None:
        where = "on the test images" if epoch is None else f"since epoch {epoch}"
        print(
            f"pdeinfer: the loss is not finite {where}: the training has diverged. Train again with a --lr below "
            f"{recipe.learning_rate:g} or, in a preset of your own, a lower dt",
            file=sys.stderr,
        )


def _print_next_steps(folder: Path, package: str, image_folder: Path | None) -> None:
    print(f"Next: {shlex.join(['pdeinfer', 'export', str(folder), '--output', package])}")
    if image_folder is not None:
        report = shlex.join(["pdeinfer", "evaluate", package, "--data-dir", str(image_folder), "--report", "report"])
        print(f"Then: {report}  # what it gets right and wrong, as one page\n      pdeinfer serve {package}")


def _print_outcome(outcome: Outcome, accuracy: str, rows: "Sequence[Row]", recipe: "Recipe") -> None:
    from training.history import has_stagnated

    if len(rows) < recipe.epochs and has_stagnated(rows, recipe.patience):
        print(f"--patience {recipe.patience} stopped the training after {len(rows)} of {recipe.epochs} epochs")
    chosen = "" if outcome.validation_accuracy is None else ", the best by validation"
    kept = f"epoch {outcome.best_epoch} of {len(rows)}{chosen}"
    print(f"test accuracy {accuracy}, {outcome.parameters:,} parameters, {kept}; {outcome.seconds:.0f} s")
    for layer, counts in (outcome.zero_fields or {}).items():
        fields = ", ".join(f"{symbol} {count}" for symbol, count in counts.items() if symbol != "channels")
        print(f"{layer}: channels whose field is zero on training images: {fields} of {counts['channels']}")


if __name__ == "__main__":
    sys.exit(run_command(["train", *sys.argv[1:]]))
