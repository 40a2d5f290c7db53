"""Draws the pictures of the results page."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

import pdeinfer
from benchmarks.results.published import NOTHING, PUBLISHED, WITH_CONFUSION
from benchmarks.results.runs import Group, studies_of_num_steps
from pdeinfer.images.convert import to_array
from pdeinfer.inspection.drawing import draw_layer
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE
from pdeinfer.spec.presets import Preset
from training.files import replace_file
from training.plots import draw_confusion

_SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"


def plot_mnist_confusion(groups: Sequence[Group], path: Path) -> None:
    """Draw the confusion matrices, summed over the runs, of the networks whose matrices the article shows."""
    groups = [group for group in groups if group.name in WITH_CONFUSION]
    if not groups:
        return
    figure = Figure(figsize=(6.2 * len(groups), 6), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        accuracy = statistics.fmean(run.accuracy for run in group.runs)
        confused = statistics.fmean(run.confusion_of_3_and_5 for run in group.runs)
        title = (
            f"{group.network_label}, {len(group.runs)} run{'s' if len(group.runs) > 1 else ''}: {accuracy:.2f} %\n"
            f"3 and 5 confused: {confused:.2f} %"
        )
        confusion = np.sum([run.confusion for run in group.runs], axis=0).tolist()
        draw_confusion(axes, confusion, group.preset.labels, title)
    _save(figure, path)


def plot_cost(groups: Sequence[Group], costs: Mapping[Preset, tuple[int, int]], path: Path) -> None:
    """Draw the accuracy of the CIFAR-10 networks against their parameters and multiply-adds."""
    groups = [group for group in groups if group.dataset == "cifar10"]
    if not groups:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    for index, (axes, label) in enumerate(zip(figure.subplots(1, 2), ("parameters", "multiply-adds"), strict=True)):
        for group in groups:
            cost = costs[group.preset][index]
            mean = statistics.fmean(run.accuracy for run in group.runs)
            (point,) = axes.plot(cost, mean, "o", label=group.label)
            paper = PUBLISHED.get(group.name, NOTHING).paper
            if paper is not None:
                axes.plot(cost, paper, "x", color=point.get_color())
        # A linear axis from 0: half the way to the right is half the cost.
        largest = max(costs[group.preset][index] for group in groups)
        axes.set(xlabel=label, ylabel="test accuracy (%)", xlim=(0, 1.1 * largest))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    axes.legend(title="dot: here, cross: paper", fontsize=8)
    _save(figure, path)


def plot_time_steps(groups: Sequence[Group], path: Path) -> None:
    """Draw the accuracy of networks against their number of time steps: every run, and the mean over seeds."""
    studies = studies_of_num_steps(groups)
    if not studies:
        return
    figure = Figure(figsize=(5.5 * len(studies), 4), layout="constrained")
    for axes, study in zip(figure.subplots(1, len(studies), squeeze=False)[0], studies, strict=True):
        points = [(num_steps, run.accuracy) for num_steps, group in study.items() for run in group.runs]
        axes.plot(*zip(*points, strict=True), "o", color="tab:blue", alpha=0.4, label="one run")
        means = [statistics.fmean(run.accuracy for run in group.runs) for group in study.values()]
        axes.plot(list(study), means, color="tab:blue", label="mean")
        title = study_name(study)
        axes.set(xlabel="time steps K", ylabel="test accuracy (%)", title=title, xticks=list(study))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def study_name(study: Mapping[int, Group]) -> str:
    """Return the shortest of the networks' names, which the others extend."""
    return min((group.network_label for group in study.values()), key=len)


def plot_learning_curves(groups: Sequence[Group], path: Path) -> None:
    """Draw accuracy against the epoch, of the first run of each group, in one plot per data set.

    The accuracy is that on the validation images. A run without any is drawn by its training accuracy, with a dashed
    line and a label that says so.
    """
    datasets = list(dict.fromkeys(group.dataset for group in groups))
    figure = Figure(figsize=(5.5 * len(datasets), 4), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for group in groups:
            if group.dataset == dataset:
                rows = group.runs[0].history
                column, line, remark = "val_accuracy", "-", ""
                if math.isnan(rows[-1][column]):
                    column, line, remark = "accuracy", "--", ", training accuracy"
                epochs, values = [row["epoch"] for row in rows], [100 * row[column] for row in rows]
                axes.plot(epochs, values, line, label=group.label + remark)
        axes.set(xlabel="epoch", ylabel="accuracy (%)", title=dataset)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def draw_fields(folder: Path) -> list[str]:
    """Draw the PDE layers of the bundled networks, for a 7 or a flower; return the pictures' names."""
    from sklearn.datasets import load_sample_image

    names = []
    for model in map(zoo.load, zoo.names()):
        preset = model.card.preset
        if FIELDS_FILE not in model.card.files:
            continue
        image = _SEVEN if preset.input.channels == 1 else load_sample_image("flower.jpg")
        for layer in pdeinfer.inspect(image, model):
            picture = draw_layer(layer, to_array(image, preset.input), preset.name)
            names.append(f"fields-{preset.name}-{layer.name}.png")
            replace_file(folder / names[-1], picture.save)
    return names


def _save(figure: Figure, path: Path) -> None:
    replace_file(path, lambda partial: figure.savefig(partial, dpi=100))
