"""The callbacks that options ask for."""

import importlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import keras

from pdeinfer.errors import TrainingError
from training.progress import Progress


def make_callbacks(references: Sequence[str], tensorboard: Path | None) -> list[keras.callbacks.Callback]:
    """Return the callbacks that are asked for, and the progress for a terminal.

    Args:
        references: as for `load_callback`.
        tensorboard: a folder for the logs for TensorBoard; None: no logs.

    Raises:
        TrainingError: a callback cannot be loaded.
    """
    callbacks = [load_callback(reference) for reference in references]
    if tensorboard is not None:
        callbacks.append(keras.callbacks.TensorBoard(tensorboard))
    if sys.stdout.isatty():
        callbacks.append(Progress())
    return callbacks


def load_callback(reference: str) -> keras.callbacks.Callback:
    """Return the Keras callback that `reference`, "module:name", makes when it is called without arguments.

    The module is found as Python finds modules, also in the working directory.

    Raises:
        TrainingError: there is no such module or name, or a module that it imports is missing; it cannot be called
            without arguments; or what it makes is no callback, or one that sets the learning rate: Keras refuses that
            where there is a schedule.
    """
    module, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = importlib.import_module(module)
        for part in name.split("."):
            make = getattr(make, part)
    except (ImportError, AttributeError) as error:
        raise TrainingError(f"--callback {reference}: {error}") from error
    finally:
        sys.path.pop(0)
    try:
        with suppress(ValueError):  # not everything that is written in C has a signature
            inspect.signature(make).bind()  # type: ignore[arg-type]  # the user's
    except TypeError as error:
        raise TrainingError(
            f"--callback {reference}: expected a function or class that is called without arguments: {error}"
        ) from error
    try:
        callback = make()  # type: ignore[operator]
    except ImportError as error:  # what it imports when it is called
        raise TrainingError(f"--callback {reference}: {error}") from error
    if not isinstance(callback, keras.callbacks.Callback):
        raise TrainingError(
            f"--callback {reference}: expected a keras.callbacks.Callback, got {type(callback).__name__}"
        )
    if isinstance(callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau):
        raise TrainingError(
            f"--callback {reference}: the recipe's schedule sets the learning rate; --lr changes its peak"
        )
    return callback
