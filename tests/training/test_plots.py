"""The plots of a training."""

from pathlib import Path

from matplotlib.figure import Figure

from training.plots import draw_confusion, plot_confusion


def test_labels_with_dollar_signs_are_drawn_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"

    plot_confusion([[1, 0], [0, 1]], [r"$\price$", "a$b$c"], "costs", path)

    assert path.read_bytes().startswith(b"\x89PNG")


def test_long_labels_end_under_their_columns_and_are_shortened() -> None:
    labels = ["German Shepherd", "Staffordshire Bull Terrier", "a breed whose name is longer than thirty characters"]
    figure = Figure()
    axes = figure.subplots()

    draw_confusion(axes, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], labels, "dogs")

    figure.draw_without_rendering()
    height = axes.get_window_extent().height / len(labels)
    for column, label in enumerate(axes.get_xticklabels()):
        end = label.get_window_extent()
        assert abs(end.x1 - axes.transData.transform((column, 0))[0]) < height / 4
    assert [label.get_text() for label in axes.get_yticklabels()] == [*labels[:2], "a breed whose name is longer …"]
