"""The plots of a training."""

from pathlib import Path

from training.plots import plot_confusion


def test_labels_with_dollar_signs_are_drawn_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"

    plot_confusion([[1, 0], [0, 1]], [r"$\price$", "a$b$c"], "costs", path)

    assert path.read_bytes().startswith(b"\x89PNG")
