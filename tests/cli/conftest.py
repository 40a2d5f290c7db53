"""Images for the tests of the commands."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images, one of them truncated."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        PIL.Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / name)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:100])
    return folder
