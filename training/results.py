"""The finished trainings that are published: `results/<preset>/seed-<n>/`."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pdeinfer.errors import TrainingError
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import PRESETS, Network, ResidualNetwork
from training.files import replace_file
from training.history import Row, read_history

# What the report reads of a run.
_KEYS = {"preset", "classifier", "recipe", "seed", "versions", "device", "seconds", "test_accuracy", "confusion"}
_PRIVATE = ("data_dir", "init_dir", "teacher_source")  # paths of the machine that trained: not for publication


@dataclass(frozen=True)
class Run:
    """A finished training, as `results/` keeps it: its metrics and a row of history an epoch."""

    metrics: dict[str, Any]
    history: list[Row]

    @property
    def accuracy(self) -> float:
        """The test accuracy in percent."""
        return 100 * float(self.metrics["test_accuracy"])

    @property
    def confusion_of_3_and_5(self) -> float:
        """The share in percent of the test 3s and 5s that are taken for the other of the two."""
        confusion = self.metrics["confusion"]
        return 100 * float(confusion[3][5] + confusion[5][3]) / float(sum(confusion[3]) + sum(confusion[5]))

    @property
    def recipe(self) -> str:
        """How it was trained, as text: equal for runs of one recipe."""
        return json.dumps(self.metrics["recipe"], sort_keys=True)

    @property
    def epochs(self) -> int:
        """How many epochs the training had."""
        return int(self.metrics["recipe"]["epochs"])

    @property
    def minutes(self) -> float:
        """How long the training took."""
        return float(self.metrics["seconds"]) / 60


def read_runs(results: Path) -> dict[str, list[Run]]:
    """Return the runs in `results/<preset>/seed-<n>/`, by preset, in the order of the presets and seeds."""
    runs: dict[str, list[Run]] = {}
    for preset in PRESETS:
        seeds = (folder.name.removeprefix("seed-") for folder in (results / preset).glob("seed-*"))
        numbers = sorted(int(seed) for seed in seeds if seed.isdecimal())
        if numbers:
            runs[preset] = [_read_run(results / preset / f"seed-{number}") for number in numbers]
    return runs


def by_recipe(runs: Mapping[str, list[Run]]) -> list[tuple[str, list[Run]]]:
    """Return every network's runs by each recipe, beside its preset: no mean is over several recipes."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for preset, group in runs.items():
        for run in group:
            groups.setdefault((preset, run.recipe), []).append(run)
    return [(preset, group) for (preset, _), group in groups.items()]


def by_num_steps(runs: Mapping[str, list[Run]]) -> list[tuple[str, dict[int, list[Run]]]]:
    """Return the runs of networks that differ in the number K of time steps alone, by K, beside the first one's preset.

    What is compared was trained by one recipe. Networks that are alone in this are left out.
    """
    studies: dict[tuple[Network, str], dict[int, list[Run]]] = {}
    names: dict[tuple[Network, str], str] = {}
    for preset, group in by_recipe(runs):
        if found := _in_one_step(PRESETS[preset].network):
            family, num_steps = found
            key = family, group[0].recipe
            names.setdefault(key, preset)
            studies.setdefault(key, {})[num_steps] = group
    return [(names[key], dict(sorted(study.items()))) for key, study in studies.items() if len(study) > 1]


def _in_one_step(network: Network) -> tuple[Network, int] | None:
    """Return the network with K = 1, and the K that it has, or None where it has no PDE layer."""
    if isinstance(network, ResidualNetwork):
        if network.pde is not None:
            return replace(network, pde=replace(network.pde, num_steps=1)), network.pde.num_steps
    elif isinstance(network.feature, PdeSpec):
        return replace(network, feature=replace(network.feature, num_steps=1)), network.feature.num_steps
    return None


def add_run(folder: Path, results: Path) -> Path:
    """Copy what the report needs of a finished training into `results`, and return where it is now.

    Raises:
        TrainingError: the training is not finished, is none of a standard data set, or would replace one of another
            recipe.
    """
    run = _read_run(folder)
    if run.metrics["recipe"]["dataset"] == "folder":
        raise TrainingError(f"{folder}: expected a training on a standard data set, got one on a folder of images")
    metrics = {name: value for name, value in run.metrics.items() if name not in _PRIVATE}
    target = results / str(metrics["preset"]) / f"seed-{metrics['seed']}"
    if target.exists() and _read_run(target).recipe != run.recipe:
        raise TrainingError(f"{target} is of another recipe than {folder}: --seed N trains one beside it")
    target.mkdir(parents=True, exist_ok=True)
    replace_file(target / "metrics.json", lambda path: path.write_text(json.dumps(metrics) + "\n"))
    replace_file(target / "history.csv", lambda path: shutil.copyfile(folder / "history.csv", path))
    return target


def _read_run(folder: Path) -> Run:
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder}: expected a finished training, with metrics.json: {error}") from error
    missing = _KEYS - metrics.keys() if isinstance(metrics, dict) else _KEYS
    if missing:
        raise TrainingError(f"{folder}: expected a finished training; metrics.json has no {', '.join(sorted(missing))}")
    history = read_history(folder / "history.csv")
    if not history:
        raise TrainingError(f"{folder}: expected a finished training, with history.csv")
    return Run(metrics, history)
