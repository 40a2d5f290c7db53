"""Draws the pictures of the results page."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

import pdeinfer
from benchmarks.results.comparisons import is_plain, plain_front
from benchmarks.results.published import WITH_CONFUSION
from benchmarks.results.runs import Group, studies_of_num_steps
from benchmarks.results.series import DATASETS, Series, split_by_recipe
from benchmarks.results.times import BATCH_SIZES, Times
from pdeinfer.files import replace_file
from pdeinfer.images.convert import to_array
from pdeinfer.inspection.drawing import draw_layer
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE
from training.plots import draw_confusion

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLORS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"]
# Colour, marker and meaning.
_PLAIN = ("black", "s", "plain ResNet (line: their front)")
_WITH_PDE = ("#0072B2", "o", "with PDE layers")
_CONTROL = ("#D55E00", "^", "without PDE layers, or with others in their place")

_SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"


def plot_mnist_confusion(groups: Sequence[Group], path: Path) -> None:
    """Draw the confusion matrices, summed over the runs, of the networks whose matrices the article shows."""
    groups = [group for group in groups if group.name in WITH_CONFUSION]
    if not groups:
        return
    figure = Figure(figsize=(6.2 * len(groups), 6), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        confused = statistics.fmean(run.confusion_of_3_and_5 for run in group.runs)
        seeds = f"{len(group.runs)} seed{'s' if len(group.runs) > 1 else ''}"
        title = f"{group.network_label}, {seeds}: {group.accuracy:.2f} %\n3 and 5 confused: {confused:.2f} %"
        confusion = np.sum([run.confusion for run in group.runs], axis=0).tolist()
        draw_confusion(axes, confusion, group.preset.labels, title)
    _save(figure, path)


def plot_times(series: Series, times: Times, path: Path) -> None:
    """Draw accuracy against measured time per image, at each batch size, with the front of plain networks."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(f"CIFAR-10, {series.title}\ntimes in float32 on one thread of {times.hardware}", fontsize=11)
    timed = [(group, by_size) for group in series.groups if (by_size := times.of(group.preset))]
    handles: dict[str, Artist] = {}
    for axes, size in zip(figure.subplots(1, len(BATCH_SIZES), sharey=True), BATCH_SIZES, strict=True):
        for group, by_size in timed:
            color, marker, kind = _kind(group)
            point = axes.errorbar(
                _milliseconds(by_size[size].median, size),
                group.accuracy,
                group.deviation,
                color=color,
                marker=marker,
                markersize=8,
                markerfacecolor="white" if group.teacher else color,
                capsize=3,
                linestyle="none",
            )
            handles[f"{kind}, distilled" if group.teacher else kind] = point
        for teacher in dict.fromkeys(group.teacher for group in series.groups):
            front = plain_front([group for group in series.groups if group.teacher == teacher], times, size)
            points = [(_milliseconds(seconds, size), accuracy) for seconds, accuracy in front]
            if points:
                axes.plot(*zip(*points, strict=True), "--" if teacher else "-", color=_PLAIN[0], zorder=1)
        axes.set(xscale="log", xlabel=f"ms per image at batch {size}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.12)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test accuracy (%), mean ± standard deviation over seeds")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.draw_without_rendering()  # settles the layout
    for axes, size in zip(figure.axes, BATCH_SIZES, strict=True):
        _label_points(axes, [(group, _milliseconds(by_size[size].median, size)) for group, by_size in timed])
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
        means = [group.accuracy for group in study.values()]
        axes.plot(list(study), means, color="tab:blue", label="mean")
        title = study_name(study)
        axes.set(xlabel="time steps K", ylabel="test accuracy (%)", title=title, xticks=list(study))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def _kind(group: Group) -> tuple[str, str, str]:
    """Return colour, marker and description."""
    if is_plain(group):
        return _PLAIN
    return _CONTROL if group.preset.network.pde is None else _WITH_PDE


def _milliseconds(seconds: float, size: int) -> float:
    """Return the milliseconds per image of a batch."""
    return 1000 * seconds / size


def _label_points(axes: Axes, points: Sequence[tuple[Group, float]]) -> None:
    """Write the names of networks beside their points (accuracy at x), each at the nearest place that is free."""
    taken = [Bbox.from_bounds(*axes.transData.transform((x, group.accuracy)) - 8, 16, 16) for group, x in points]
    for line in axes.lines:
        for start, end in itertools.pairwise(axes.transData.transform(line.get_xydata())):
            taken += [Bbox.from_bounds(*start + share * (end - start), 1, 1) for share in np.linspace(0, 1, 50)]
    for group, x in points:
        name, color = group.network_label.removeprefix("cifar10-"), _kind(group)[0]
        arrow = {"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkB": 4}
        style = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": color}
        sample = axes.annotate(name, (x, group.accuracy), (0, 0), ha="center", **style)
        extent = sample.get_window_extent().padded(3)
        sample.remove()
        candidates = []
        for distance, angle in itertools.product((12, 24, 36, 48, 60, 80, 100), range(0, 360, 15)):
            dx, dy = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
            side = round(math.copysign(abs(dx) > 1, dx))  # -1: left of the point, 1: right of it
            points_to_pixels = axes.figure.dpi / 72
            box = extent.translated(dx * points_to_pixels + side * extent.width / 2, dy * points_to_pixels)
            is_outside = not (axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1))
            candidates.append((is_outside, box.count_overlaps(taken), distance, (dx, dy), side, box))
        *_, distance, place, side, box = min(candidates, key=lambda candidate: candidate[:2])
        taken.append(box)
        alignment = {-1: "right", 0: "center", 1: "left"}[side]
        far = {"arrowprops": arrow} if distance > 12 else {}
        axes.annotate(name, (x, group.accuracy), place, ha=alignment, **style, **far)


def study_name(study: Mapping[int, Group]) -> str:
    """Return the shortest of the networks' names, which the others extend."""
    return min((group.network_label for group in study.values()), key=len)


def plot_learning_curves(groups: Sequence[Group], path: Path) -> None:
    """Draw accuracy against the epoch, of the first run of each group, in one plot per data set and recipe.

    The accuracy is that on the validation images, or on the training images where there are none for validation.
    """
    plots = [
        (dataset, series)
        for dataset in dict.fromkeys(group.dataset for group in groups)
        for series in split_by_recipe([group for group in groups if group.dataset == dataset])
    ]
    figure = Figure(figsize=(9, 4 * len(plots)), layout="constrained")
    for axes, (dataset, series) in zip(figure.subplots(len(plots), 1, squeeze=False)[:, 0], plots, strict=True):
        histories = [group.runs[0].history for group in series.groups]
        validated = not any(math.isnan(rows[-1]["val_accuracy"]) for rows in histories)
        axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=_COLORS))
        for group, rows in zip(series.groups, histories, strict=True):
            teacher = f", distilled from {group.teacher}" if group.teacher else ""
            values = [100 * row["val_accuracy" if validated else "accuracy"] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, label=group.network_label + teacher)
        kind = "validation" if validated else "training"
        axes.set(xlabel="epoch", ylabel=f"{kind} accuracy (%)", title=f"{DATASETS[dataset]}, {series.title}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
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
