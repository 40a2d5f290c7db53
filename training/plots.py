"""Draws the learning curves of a training, and its confusion matrix on the test images."""

import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pdeinfer.files import replace_file
from pdeinfer.text import printable
from training.history import Row, best_epoch

# Of Linux, macOS and Windows, for the class names that Matplotlib's own font cannot write.
_FALLBACK_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Leelawadee UI"),
)
_MISSING = r"Glyph \d+ .* missing from"  # of Matplotlib's warnings, one for each character and place
_LABEL_LENGTH = 30  # characters that are drawn: longer labels would leave no room for the matrix


def plot_learning_curves(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw loss and accuracy of training and, if any, validation against the epoch; rows as in `history.csv`."""
    epochs = [int(row["epoch"]) for row in rows]
    best = best_epoch(rows)
    validated = not math.isnan(best["val_accuracy"])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        scale = 100 if name == "accuracy" else 1
        marker = "o" if len(epochs) == 1 else ""  # a line with one point is invisible
        axes.plot(epochs, [scale * row[name] for row in rows], marker=marker, label="training")
        if validated:
            axes.plot(epochs, [scale * row[f"val_{name}"] for row in rows], marker=marker, label="validation")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="accuracy (%)" if name == "accuracy" else "loss")
        axes.grid(alpha=0.3)
        axes.legend()
    if validated:
        axes.axvline(best["epoch"], color="grey", linestyle=":", linewidth=1)
        axes.annotate(
            f"best: {100 * best['val_accuracy']:.2f} %",
            (best["epoch"], 100 * best["val_accuracy"]),
            xytext=(-6, -14),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )
    figure.suptitle(title)
    replace_file(path, lambda partial: figure.savefig(partial, dpi=120))


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Draw the confusion matrix, rows true and columns predicted: images, coloured by percent of the true class."""
    room = 0.07 * min(max(map(len, labels)), _LABEL_LENGTH)  # inches for the labels
    size = min(max(4.5, 0.62 * len(labels) + 1.5) + room, 16)
    with _fonts_of_all_scripts(path):
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.subplots()
        image = draw_confusion(axes, confusion, labels)
        figure.suptitle(title)
        figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
        replace_file(path, lambda partial: figure.savefig(partial, dpi=120))


@contextmanager
def _fonts_of_all_scripts(path: Path) -> Iterator[None]:
    """Take characters that Matplotlib's font lacks from others; say in one line if none has them. `path`: the plot."""
    installed = set(font_manager.get_font_names())
    families = [*mpl.rcParams["font.family"], *(name for name in _FALLBACK_FONTS if name in installed)]
    with mpl.rc_context({"font.family": families}), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", _MISSING)
        yield
    missing = [warning for warning in caught if re.match(_MISSING, str(warning.message))]
    for warning in caught:
        if warning not in missing:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        print(
            f"pdeinfer: {printable(str(path))}: no font on this machine has some characters of the class names: they "
            "are drawn as boxes. For Chinese, Japanese and Korean, install Noto Sans CJK",
            file=sys.stderr,
        )


def draw_confusion(axes: Axes, confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str = "") -> AxesImage:
    """Draw a confusion matrix into `axes`; return the coloured image."""
    font_size = min(10, 600 / len(labels))  # of the labels; above 60 labels, as large as fits
    shares = [[100 * count / max(sum(row), 1) for count in row] for row in confusion]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(labels) <= 20:  # with more classes, numbers would be illegible
        for true, row in enumerate(confusion):
            for predicted, count in enumerate(row):
                if count:
                    colour = "white" if shares[true][predicted] > 55 else "black"
                    axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=8)
    names = [label if len(label) <= _LABEL_LENGTH else f"{label[: _LABEL_LENGTH - 1]}…" for label in labels]
    # parse_math=False: a label may have dollar signs, which would delimit a formula.
    axes.set_xticks(range(len(names)), names, fontsize=font_size, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=font_size, parse_math=False)
    if max(map(len, names)) > 2:  # the end of each name under its column
        for tick in axes.get_xticklabels():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return image
