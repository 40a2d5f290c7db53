"""What is measured of a finished training."""

import numpy as np
import pytest

from pdeinfer.datasets import Split
from training.outcome import sample


@pytest.mark.parametrize(("count", "size"), [(1, 1), (500, 500), (999, 500), (1_000, 500), (1_001, 334)])
def test_the_sample_of_training_images_has_all_classes_of_a_folder_read_class_by_class(count: int, size: int) -> None:
    labels = np.sort(np.arange(count) % 7)

    images = sample(Split(labels[:, np.newaxis], labels))

    assert len(images) == size
    assert set(images[:, 0].tolist()) == set(labels.tolist())
