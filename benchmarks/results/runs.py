"""Reads and adds the finished trainings in `results/`, and groups those that may share a mean."""

import json
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pdeinfer.errors import TrainingError
from pdeinfer.files import replace_file
from pdeinfer.spec.networks import Network, ResidualNetwork
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import METRICS_FILE, Outcome, TrainingRecord
from training.history import HISTORY_FILE, Row, has_stagnated, read_history


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        preset: the network that was trained, as it was then, under the name of the preset that was asked for.
        confusion: test images by true class (rows) and predicted class (columns).
        history: a row per epoch.
    """

    record: TrainingRecord
    preset: Preset
    outcome: Outcome
    confusion: Sequence[Sequence[int]]
    history: Sequence[Row]

    @property
    def accuracy(self) -> float:
        """The test accuracy in percent."""
        return 100 * self.outcome.test_accuracy

    @property
    def confusion_of_3_and_5(self) -> float:
        """The share of test 3s and 5s that are taken for each other, in percent."""
        three, five = self.confusion[3], self.confusion[5]
        return 100 * (three[5] + five[3]) / (sum(three) + sum(five))

    @property
    def minutes(self) -> float:
        """How long the training took."""
        return self.outcome.seconds / 60


@dataclass(frozen=True)
class Group:
    """The runs of one network by one recipe: they differ in the seed, and perhaps in device and software."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The preset's name."""
        return self.runs[0].record.preset

    @property
    def preset(self) -> Preset:
        """The network, as it was trained."""
        return self.runs[0].preset

    @property
    def is_earlier(self) -> bool:
        """Whether the preset of this name has another network today."""
        return is_earlier(self.preset)

    @property
    def network_label(self) -> str:
        """The preset's name and, where it has another network today, a remark."""
        return network_label(self.preset)

    @property
    def accuracy(self) -> float:
        """The mean test accuracy in percent."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the test accuracy over the runs, in points; None for a single run."""
        return statistics.stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.runs[0].record.dataset

    @property
    def epochs(self) -> int:
        """The recipe's number of epochs."""
        return int(self.recipe["epochs"])

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe's values that say something; see `effective_recipe`."""
        return effective_recipe(self.runs[0].record)

    @property
    def conditions(self) -> str:
        """The recipe with the checksums of the models that the networks learnt from: equal if trained alike."""
        return json.dumps(_conditions(self.runs[0].record), sort_keys=True)

    @property
    def recipe_label(self) -> str:
        """Epochs and options, e.g. "150 epochs, mixup 0.2, distilled from cifar10-resnet32"."""
        return recipe_label(self.recipe)

    @property
    def teacher(self) -> str | None:
        """The name of the model that was distilled."""
        return self.recipe.get("teacher")

    @property
    def label(self) -> str:
        """Network and recipe."""
        return f"{self.network_label}, {self.recipe_label}"


def is_earlier(preset: Preset) -> bool:
    """Return whether the preset of this name has another network today."""
    return preset.name in PRESETS and preset.network != PRESETS[preset.name].network


def network_label(preset: Preset) -> str:
    """Return the preset's name and, where it has another network today, a remark."""
    return f"{preset.name} (earlier network)" if is_earlier(preset) else preset.name


def recipe_label(recipe: Mapping[str, Any]) -> str:
    """Return the epochs and options of an effective recipe."""
    parts = [f"{recipe['epochs']} epochs"]
    if "mixup" in recipe:
        parts.append(f"mixup {recipe['mixup']:g}")
    if "teacher" in recipe:
        parts.append(f"distilled from {recipe['teacher']}")
    if "initial_weights" in recipe:
        parts.append(f"started from {recipe['initial_weights']}")
    if "precision" in recipe:
        parts.append(recipe["precision"])
    return ", ".join(parts)


def effective_recipe(record: TrainingRecord) -> dict[str, Any]:
    """Return what decides a training beside network and seed, without values that change nothing.

    It is equal for equal trainings, whichever version recorded them. Beside the values of the recipe it names the
    teacher, the model whose weights the training started from, and a precision other than float32.
    """
    recipe = {name: value for name, value in record.recipe.items() if value not in (None, 0, False)}
    if recipe.get("initializations") == 1:
        del recipe["initializations"]
    if "distillation_weight" not in recipe:
        recipe.pop("temperature", None)
    if record.teacher is not None:
        recipe["teacher"] = record.teacher.model
    if record.init is not None:
        recipe["initial_weights"] = record.init.model
    if record.precision != "float32":
        recipe["precision"] = record.precision
    return recipe


def read_groups(results: Path) -> list[Group]:
    """Return the runs in `results/<preset>/<run>/`, in the order of the presets.

    Raises:
        TrainingError: a run is damaged.
    """
    groups: dict[str, list[Run]] = {}
    for path in results.glob(f"*/*/{METRICS_FILE}"):
        run = read_run(path.parent)
        groups.setdefault(_identity(run), []).append(run)
    return sorted((Group(tuple(sorted(group, key=_seed))) for group in groups.values()), key=_place)


def studies_of_num_steps(groups: Sequence[Group]) -> list[dict[int, Group]]:
    """Return groups whose networks differ in the number K of time steps alone, by K.

    Each study has one recipe. A group that is alone in its study is left out.
    """
    studies: dict[tuple[Network, str], dict[int, Group]] = {}
    for group in groups:
        if found := _with_one_step(group.preset.network):
            network, num_steps = found
            studies.setdefault((network, group.conditions), {})[num_steps] = group
    return [dict(sorted(study.items())) for study in studies.values() if len(study) > 1]


def add_run(folder: Path, results: Path) -> Path:
    """Copy what the report needs of a finished training into `results`; return its new folder.

    A run of the same network, recipe and seed is replaced.

    Raises:
        TrainingError: the training has not finished, or used a folder of images.
    """
    run = read_run(folder)
    if run.record.images is not None:
        raise TrainingError(f"{folder}: expected a training on a standard data set, got one on a folder of images")
    target = _target(run, results / run.record.preset)
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps(run.record.without_paths().to_dict()) + "\n"
    replace_file(target / METRICS_FILE, lambda path: path.write_text(text))
    replace_file(target / HISTORY_FILE, lambda path: shutil.copyfile(folder / HISTORY_FILE, path))
    return target


def read_run(folder: Path) -> Run:
    """Read a finished training.

    Raises:
        TrainingError: it has not finished, was stopped early by a callback, or is damaged.
    """
    path = folder / METRICS_FILE
    try:
        record = TrainingRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: expected the record of a finished training: {error}") from error
    outcome, preset = record.outcome, record.classifier
    if outcome is None or outcome.confusion is None or preset is None:
        raise TrainingError(
            f"{path}: expected the record of a finished training, with its network and confusion matrix"
        )
    history = read_history(folder / HISTORY_FILE)
    if not history:
        raise TrainingError(f"{folder}: expected a finished training, with {HISTORY_FILE}")
    epochs = record.recipe["epochs"]
    if len(history) < epochs and not has_stagnated(history, record.recipe.get("patience")):
        raise TrainingError(
            f"{folder}: expected a training of {epochs} epochs, got one that was stopped after {len(history)}"
        )
    return Run(record, replace(preset, name=record.preset), outcome, outcome.confusion, history)


def _identity(run: Run) -> str:
    """Return what the runs of a group have in common."""
    return json.dumps([run.preset.to_dict(), *_conditions(run.record)], sort_keys=True)


def _conditions(record: TrainingRecord) -> list[Any]:
    """Return the recipe, and the checksums of the models that it names."""
    return [effective_recipe(record), [model and model.sha256 for model in (record.teacher, record.init)]]


def _seed(run: Run) -> int:
    return run.record.seed


def _place(group: Group) -> tuple[int, bool, int, int, str]:
    """Return a key to sort by: presets in their order, networks of today first, recipes short and simple first."""
    index = list(PRESETS).index(group.name) if group.name in PRESETS else len(PRESETS)
    return index, group.is_earlier, group.epochs, len(group.recipe), _identity(group.runs[0])


def _target(run: Run, parent: Path) -> Path:
    """Return the folder for a run: that of the run it replaces, or a new one."""
    name = re.sub(r"[, ]+", "-", f"{Group((run,)).recipe_label} seed {run.record.seed}")
    folders = (parent / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in folders if not folder.exists() or _identity(read_run(folder)) == _identity(run))


def _with_one_step(network: Network) -> tuple[Network, int] | None:
    """Return the network with K = 1, and its K; None where it has no PDE layer."""
    if isinstance(network, ResidualNetwork):
        if network.pde is not None:
            return replace(network, pde=replace(network.pde, num_steps=1)), network.pde.num_steps
    elif isinstance(network.feature, PdeSpec):
        return replace(network, feature=replace(network.feature, num_steps=1)), network.feature.num_steps
    return None
