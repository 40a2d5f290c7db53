"""The real data sets have their published counts and statistics."""

from pathlib import Path

import numpy as np
import pytest

from pdeinfer.datasets import load_dataset

pytestmark = pytest.mark.data


def test_mnist_has_its_published_counts_labels_and_statistics(data_dir: Path) -> None:
    dataset = load_dataset("mnist", data_dir)

    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert dataset.test.images.shape == (10_000, 28, 28, 1)
    assert dataset.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert dataset.train.images.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_cifar10_has_its_published_counts_and_channel_means(data_dir: Path) -> None:
    dataset = load_dataset("cifar10", data_dir)

    assert dataset.train.images.shape == (50_000, 32, 32, 3)
    assert dataset.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=6e-5)
