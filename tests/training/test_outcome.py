"""What is measured of a finished training."""

from pathlib import Path

import numpy as np
import pytest

from pdeinfer.datasets import Split, load_dataset
from pdeinfer.errors import ExportError
from training.checkpoints import RunFolder
from training.history import COLUMNS, write_history
from training.outcome import measure, sample


@pytest.mark.parametrize(("count", "size"), [(1, 1), (500, 500), (999, 500), (1_000, 500), (1_001, 334)])
def test_the_sample_of_training_images_has_all_classes_of_a_folder_read_class_by_class(count: int, size: int) -> None:
    labels = np.sort(np.arange(count) % 7)

    images = sample(Split(labels[:, np.newaxis], labels))

    assert len(images) == size
    assert set(images[:, 0].tolist()) == set(labels.tolist())


def test_a_damaged_network_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", [dict.fromkeys(COLUMNS, 1.0)])
    for name in ("last-1.keras", "model.keras"):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ExportError, match=r"model\.keras: expected a \.keras file"):
        measure(RunFolder(tmp_path), load_dataset("digits", None), "cpu")
