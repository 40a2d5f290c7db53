"""The pictures of the results page."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

import pdeinfer
from pdeinfer.images.convert import to_array
from pdeinfer.inspection.drawing import draw_layer
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE
from pdeinfer.spec.presets import PRESETS
from training.files import replace_file
from training.plots import draw_confusion
from training.published import NOTHING, PUBLISHED, WITH_CONFUSION
from training.results import Run, by_num_steps, by_recipe

_SEVEN = Path(__file__).parents[1] / "examples" / "seven.png"


def plot_mnist_confusion(runs: Mapping[str, list[Run]], path: Path) -> None:
    """Draw the confusion matrices, summed over the runs, of the MNIST networks that the article has, side by side."""
    networks = [(preset, group) for preset, group in by_recipe(runs) if preset in WITH_CONFUSION]
    if not networks:
        return
    figure = Figure(figsize=(6.2 * len(networks), 6), layout="constrained")
    for axes, (preset, group) in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        accuracy = statistics.fmean(run.accuracy for run in group)
        confused = statistics.fmean(run.confusion_of_3_and_5 for run in group)
        title = (
            f"{preset}, {len(group)} run{'s' if len(group) > 1 else ''}: {accuracy:.2f} %\n"
            f"3 and 5 confused: {confused:.2f} %"
        )
        confusion = np.sum([run.metrics["confusion"] for run in group], axis=0).tolist()
        draw_confusion(axes, confusion, PRESETS[preset].labels, title)
    _save(figure, path)


def plot_cost(runs: Mapping[str, list[Run]], costs: Mapping[str, tuple[int, int]], path: Path) -> None:
    """Draw the accuracy of the CIFAR-10 networks against their parameters and multiply-adds."""
    runs = {preset: group for preset, group in runs.items() if preset.startswith("cifar10-")}
    if not runs:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    for index, (axes, label) in enumerate(zip(figure.subplots(1, 2), ("parameters", "multiply-adds"), strict=True)):
        for preset, group in by_recipe(runs):
            mean = statistics.fmean(run.accuracy for run in group)
            (point,) = axes.plot(costs[preset][index], mean, "o", label=f"{preset}, {group[0].epochs} epochs")
            paper = PUBLISHED.get(preset, NOTHING).paper
            if paper is not None:
                axes.plot(costs[preset][index], paper, "x", color=point.get_color())
        # Linear, from 0: half the way to the right is half the cost.
        largest = max(costs[preset][index] for preset in runs)
        axes.set(xlabel=label, ylabel="test accuracy (%)", xlim=(0, 1.1 * largest))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    axes.legend(title="dot: here, cross: paper", fontsize=8)
    _save(figure, path)


def plot_time_steps(runs: dict[str, list[Run]], path: Path) -> None:
    """Draw the accuracy of networks against their number of time steps: every run, and the mean over seeds."""
    studies = by_num_steps(runs)
    if not studies:
        return
    figure = Figure(figsize=(5.5 * len(studies), 4), layout="constrained")
    for axes, (preset, study) in zip(figure.subplots(1, len(studies), squeeze=False)[0], studies, strict=True):
        points = [(num_steps, run.accuracy) for num_steps, group in study.items() for run in group]
        axes.plot(*zip(*points, strict=True), "o", color="tab:blue", alpha=0.4, label="a run")
        means = [statistics.fmean(run.accuracy for run in group) for group in study.values()]
        axes.plot(list(study), means, color="tab:blue", label="mean")
        axes.set(xlabel="time steps K", ylabel="test accuracy (%)", title=preset, xticks=list(study))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def plot_learning_curves(runs: Mapping[str, list[Run]], path: Path) -> None:
    """Draw the validation accuracy against the epoch, of every network's first run by each recipe, by data set."""
    datasets = list(dict.fromkeys(group[0].metrics["recipe"]["dataset"] for group in runs.values()))
    figure = Figure(figsize=(5.5 * len(datasets), 4), layout="constrained")
    for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        for preset, group in by_recipe(runs):
            if group[0].metrics["recipe"]["dataset"] == dataset:
                rows, label = group[0].history, f"{preset}, {group[0].epochs} epochs"
                axes.plot([row["epoch"] for row in rows], [100 * row["val_accuracy"] for row in rows], label=label)
        axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title=dataset)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def draw_fields(folder: Path) -> list[str]:
    """Draw the PDE layers of the bundled networks, for a 7 or a flower, and return the pictures' names."""
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
