"""The folder of a training: its record, checkpoints and history, written atomically."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from pdeinfer.errors import TrainingError
from pdeinfer.files import replace_file
from pdeinfer.nn.loading import first_line
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.package import KERAS_FILE
from pdeinfer.spec.training_record import METRICS_FILE, RECORD_FILE, Outcome, TrainingRecord
from training.history import COLUMNS, HISTORY_FILE, Row, best_epoch, read_history, write_history

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """The folder of one training.

    `run.json` records the start, `history.csv` has a row per epoch, `last-N.keras` is the network after N epochs with
    the optimizer's state, and `model.keras` is the network of the best epoch. Epoch N counts once `last-N.keras`
    exists: its row is written before, `model.keras` afterwards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / KERAS_FILE
        self.history = path / HISTORY_FILE

    def check_is_free(self) -> None:
        """Raise TrainingError if the path holds a training or a model already, or is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path} is a file: --out DIR names the folder of the training")
        if (self.path / RECORD_FILE).exists():
            raise TrainingError(f"{self.path} holds a training: --resume continues it, --out DIR names another folder")
        if self.history.exists() or self.epochs():
            raise TrainingError(
                f"{self.path} holds parts of a training but no {RECORD_FILE}: --out DIR names another folder"
            )
        for name in (CARD_FILE, KERAS_FILE):
            if (self.path / name).exists():
                raise TrainingError(f"{self.path} holds a model, {name}: --out DIR names another folder")

    def start(self, record: TrainingRecord) -> None:
        """Make the folder and write the record of the training.

        Raises:
            TrainingError: the folder holds a training or a model already.
        """
        self.check_is_free()
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(RECORD_FILE, record.to_dict())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder, where the system and the file system have locks.

        Then what a killed process has left half written is removed.

        Raises:
            TrainingError: another process is training in it.
        """
        if fcntl is None:
            yield
            return
        with (self.path / RECORD_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(f"{self.path}: another process is training in this folder") from None
            except OSError:  # a file system without locks
                pass
            else:
                for path in self.path.glob(f".partial-{'[0-9a-f]' * 8}.*"):  # as `pdeinfer.files` names them
                    path.unlink(missing_ok=True)
            yield

    def record(self) -> TrainingRecord:
        """Return the record of the training in the folder.

        Raises:
            TrainingError: there is no training to resume, or its record is damaged.
        """
        try:
            return TrainingRecord.from_dict(json.loads((self.path / RECORD_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise TrainingError(f"{self.path}: no training to resume (it has no {RECORD_FILE})") from error
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{self.path / RECORD_FILE}: not the record of a training: {error}") from error

    def outcome(self) -> Outcome | None:
        """Return the outcome that was measured when the training last ended; None if there is none that can be read."""
        try:
            values = json.loads((self.path / METRICS_FILE).read_text(encoding="utf-8"))
            return TrainingRecord.from_dict(values).outcome
        except (OSError, ValueError, RecursionError):
            return None

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON file atomically."""
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        replace_file(self.path / name, lambda path: path.write_text(text))

    def checkpoint(self, epoch: int) -> Path:
        """Return the path of the network after this many epochs."""
        return self.path / f"last-{epoch}.keras"

    def epochs(self) -> list[int]:
        """Return the epochs that have a checkpoint: the last one and, after an interruption, perhaps the one before."""
        numbers = (path.stem.removeprefix("last-") for path in self.path.glob("last-*.keras"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def last_epoch(self) -> int:
        """Return the number of epochs that count: 0 without a checkpoint."""
        return max(self.epochs(), default=0)

    def rows(self) -> list[Row]:
        """Return the history of the epochs that count.

        Raises:
            TrainingError: it is damaged, or does not match the checkpoint.
        """
        rows, epoch = read_history(self.history), self.last_epoch()
        if not epoch <= len(rows) <= epoch + 1:  # an epoch's row is written before its checkpoint
            if not epoch:
                raise TrainingError(f"{self.history} has {len(rows)} epochs, but last-{len(rows)}.keras is missing")
            raise TrainingError(
                f"{self.history}: expected {epoch} epochs, as {self.checkpoint(epoch).name} has, or one more, "
                f"got {len(rows)}"
            )
        return rows[:epoch]

    def load_last(self) -> keras.Model:
        """Return the network of the last epoch that counts, with its optimizer.

        Raises:
            TrainingError: the file is damaged.
        """
        path = self.checkpoint(self.last_epoch())
        try:
            return keras.saving.load_model(path)
        except Exception as error:  # Keras and HDF5 raise errors of many kinds for damaged files
            raise TrainingError(f"{path}: cannot be loaded: {first_line(error)}") from error

    def keep_if_best(self, rows: Sequence[Row]) -> None:
        """Copy the last checkpoint to `model.keras` if its epoch is the best. Idempotent."""
        if best_epoch(rows) is rows[-1]:
            replace_file(self.best, lambda path: shutil.copyfile(self.checkpoint(len(rows)), path))


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """After each whole epoch, write the history, the last network and the best one so far."""

    def __init__(self, folder: RunFolder, rows: list[Row]) -> None:
        super().__init__()
        self.folder = folder
        self.rows = rows

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        del logs
        self.batch = batch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.batch + 1 < self.params["steps"]:  # a callback stopped the training within the epoch
            return
        row = {"epoch": epoch + 1, **(logs or {})}
        self.rows.append({name: float(row.get(name, math.nan)) for name in COLUMNS})
        write_history(self.folder.history, self.rows)
        replace_file(self.folder.checkpoint(epoch + 1), self.model.save)
        self.folder.keep_if_best(self.rows)
        for older in self.folder.epochs()[:-1]:
            self.folder.checkpoint(older).unlink()
