"""Reads and writes the history of a training, a CSV file with a row per epoch."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from pdeinfer.errors import TrainingError
from pdeinfer.files import replace_file

Row: TypeAlias = dict[str, float]  # with the keys of COLUMNS; NaN in val_* without validation images

HISTORY_FILE = "history.csv"
COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


def read_history(path: Path) -> list[Row]:
    """Return the rows of a history file; no rows if there is no file.

    Raises:
        TrainingError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [{name: float(row[name] or "nan") for name in COLUMNS} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise TrainingError(f"{path}: not the history of a training: {error!r}") from error


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as a history file, atomically."""

    def write(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows:
                known = {name: value for name, value in row.items() if not math.isnan(value)}
                writer.writerow({**known, "epoch": int(row["epoch"])})

    replace_file(path, write)


def diverged_since(rows: Sequence[Row]) -> int | None:
    """Return the first of the epochs at the end whose loss or validation loss is not finite; None if there is none."""
    epoch = None
    for row in reversed(rows):
        has_validation = not math.isnan(row["val_accuracy"])
        if math.isfinite(row["loss"]) and (math.isfinite(row["val_loss"]) or not has_validation):
            break
        epoch = int(row["epoch"])
    return epoch


def has_stagnated(rows: Sequence[Row], patience: int | None) -> bool:
    """Return whether the best validation accuracy was first reached `patience` epochs ago; False if that is None."""
    if patience is None or not rows:
        return False
    best = max(rows, key=lambda row: row["val_accuracy"])  # the first of equal ones
    return len(rows) - best["epoch"] >= patience


def best_epoch(rows: Sequence[Row]) -> Row:
    """Return the row with the best validation accuracy; without validation images, the last row.

    Of equal rows the last is the best: its learning rate is the lowest.
    """
    if math.isnan(rows[-1]["val_accuracy"]):
        return rows[-1]
    return max(reversed(rows), key=lambda row: row["val_accuracy"])
