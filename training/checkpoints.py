"""A training's folder: what it was started with, its checkpoints and its history, always whole."""

import json
from pathlib import Path
from typing import Any

import keras

from pdeinfer.errors import TrainingError
from training.files import replace_file
from training.history import COLUMNS, Row, best_epoch, write_history
from training.settings import Settings


class RunFolder:
    """The folder of one training.

    `run.json` says what was started, `last.keras` is the last epoch with the optimizer's state, `model.keras` the best
    epoch's network, `history.csv` has a row an epoch. `last.keras` is written last: an epoch counts once it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.keras"
        self.best = path / "model.keras"
        self.history = path / "history.csv"

    def check_is_free(self) -> None:
        """Raise TrainingError if the folder holds a training already, or is none."""
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} is a file: --out DIR names the folder of the training")
        if (self.path / "run.json").exists():
            raise TrainingError(f"{self.path} holds a training: --resume continues it, --out DIR names another folder")

    def start(self, settings: Settings) -> None:
        """Make the folder and record what is started in it.

        Raises:
            TrainingError: the folder holds a training already.
        """
        self.check_is_free()
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("run.json", settings.to_dict())

    def settings(self) -> Settings:
        """Return what the training was started with.

        Raises:
            TrainingError: there is none to resume, or its record is damaged.
        """
        try:
            return Settings.from_dict(json.loads((self.path / "run.json").read_text()))
        except FileNotFoundError as error:
            raise TrainingError(f"{self.path}: no training to resume (it has no run.json)") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TrainingError(f"{self.path / 'run.json'}: not the record of a training: {error!r}") from error

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file, whole."""
        text = json.dumps(values, indent=2) + "\n"
        replace_file(self.path / name, lambda path: path.write_text(text))

    def load_last(self) -> keras.Model:
        """Return the network of the last finished epoch, with its optimizer.

        Raises:
            TrainingError: the file is damaged.
        """
        try:
            return keras.saving.load_model(self.last)
        except Exception as error:  # Keras and HDF5 raise whatever the damage leads to
            raise TrainingError(f"{self.last}: cannot be loaded: {str(error).splitlines()[0]}") from error


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Write the history, the best network so far and the last one, after each epoch."""

    def __init__(self, folder: RunFolder, rows: list[Row]) -> None:
        super().__init__()
        self.folder = folder
        self.rows = rows

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {"epoch": epoch + 1, **(logs or {})}
        self.rows.append({name: float(row[name]) for name in COLUMNS})
        write_history(self.folder.history, self.rows)
        if best_epoch(self.rows) is self.rows[-1]:
            replace_file(self.folder.best, self.model.save)
        replace_file(self.folder.last, self.model.save)
