"""Fixtures: folders of photos, with and without splits."""

from pathlib import Path

import pytest

from tests.datasets.folders import write_images


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """photos/dog with 10 images and photos/cat with 5."""
    folder = tmp_path / "photos"
    write_images(folder / "dog", 10)
    write_images(folder / "cat", 5)
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """photos/train, photos/val and photos/test with 4, 3 and 2 images of each of dog and cat."""
    folder = tmp_path / "photos"
    for name, count in (("train", 4), ("val", 3), ("test", 2)):
        for label in ("dog", "cat"):
            write_images(folder / name / label, count)
    return folder
