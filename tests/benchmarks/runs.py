"""Runs as training leaves them, and the tables of the page about them."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.results import report
from benchmarks.results.runs import Group
from benchmarks.results.tables import Costs
from benchmarks.results.times import Times
from pdeinfer.spec.presets import PRESETS
from training.history import COLUMNS


def page(groups: list[Group], costs: Costs | None = None, times: Times | None = None) -> str:
    costs = costs or dict.fromkeys((group.preset for group in groups), (522, 14_602))
    return report.render(groups, costs, times or Times(), "pictures", [])


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of the rows of a page's tables of results, by recipe."""
    return {
        title: [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for title, table in re.findall(r"^### (.+)\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    }


def rows(groups: list[Group]) -> list[list[str]]:
    """Return the cells of the rows of a page's tables of results."""
    return [row for rows in tables_of(page(groups)).values() for row in rows]


def recipe(epochs: int) -> dict[str, Any]:
    return {"dataset": "mnist", "epochs": epochs}


def write_run(folder: Path, seed: int, preset: str = "mnist-cnn", **changes: object) -> None:
    """Write a run of all epochs, in which 15 % of the 3s and 5s are taken for each other."""
    confusion = [[10 if row == column else 0 for column in range(10)] for row in range(10)]
    confusion[3][3], confusion[3][5] = 8, 2
    confusion[5][5], confusion[5][3] = 9, 1
    metrics: dict[str, Any] = {
        "preset": preset,
        "classifier": PRESETS[preset].to_dict(),
        "seed": seed,
        "precision": "float32",
        "recipe": recipe(7),
        "device": "cpu",
        "versions": {"backend": "tensorflow"},
        "seconds": 120.0,
        "best_epoch": 1,
        "parameters": 522,
        "test_accuracy": 0.9,
        "test_loss": 0.3,
        "test_images": 100,
        "confusion": confusion,
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_epochs(folder, metrics["recipe"]["epochs"])


def write_epochs(folder: Path, count: int) -> None:
    """Write a history of epochs that are all alike."""
    rows = [f"{epoch}{',0.5' * 6}\n" for epoch in range(1, count + 1)]
    (folder / "history.csv").write_text("".join([f"{','.join(COLUMNS)}\n", *rows]))
