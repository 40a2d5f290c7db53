"""Folders of images for tests, and what was found in them."""

from pathlib import Path

import numpy as np
import PIL.Image

from pdeinfer.datasets import ImageFolder


def write_images(folder: Path, count: int) -> None:
    """Write images 0, 1, 2, ... of different sizes, modes and formats."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        mode, suffix = [("L", "png"), ("RGB", "jpg"), ("RGBA", "PNG"), ("P", "gif")][number % 4]
        pixels = rng.integers(0, 256, (9 + number, 30 - number), dtype=np.uint8)
        PIL.Image.fromarray(pixels).convert(mode).save(folder / f"{number:02}.{suffix}")


def files_of(folder: ImageFolder) -> dict[str, set[str]]:
    return {
        name: {path.relative_to(folder.path).as_posix() for path, _ in files} for name, files in folder.files.items()
    }
