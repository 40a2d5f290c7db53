"""The plots of a training."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from training import plots
from training.plots import draw_confusion, plot_confusion, plot_learning_curves


def test_the_loss_is_not_called_cross_entropy_which_it_is_not_with_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure()
    monkeypatch.setattr(plots, "Figure", lambda **_: figure)

    plot_learning_curves(
        [{"epoch": 1, "loss": 9.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.4}],
        "distilled",
        tmp_path / "curves.png",
    )

    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy (%)"]


def test_labels_with_dollar_signs_are_drawn_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"

    plot_confusion([[1, 0], [0, 1]], [r"$\price$", "a$b$c"], "costs", path)

    assert path.read_bytes().startswith(b"\x89PNG")


def test_characters_without_a_font_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_FALLBACK_FONTS", ("No such font",))

    plot_confusion([[1, 0], [0, 1]], ["cat 猫", "dog 犬"], "animals", tmp_path / "confusion.png")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pdeinfer: {tmp_path}/confusion.png: no font on this machine has some characters")


def test_characters_are_taken_from_another_font_that_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_FALLBACK_FONTS", ("No such font", "STIXGeneral"))  # comes with Matplotlib

    plot_confusion([[1, 0], [0, 1]], ["cat \u2312", "dog \u2315"], "animals", tmp_path / "confusion.png")

    assert capsys.readouterr().err == ""


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
