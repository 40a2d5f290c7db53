"""Holds decoded images in memory, or in a file where they would fill it."""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pdeinfer.datasets import Allocate

_SHARE = 4  # of the memory, a quarter: training needs the rest
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # as a container sees its own


def allocator(total: int, out: Path) -> Allocate:
    """Return what allocates arrays of images: in memory, or in files if `total` bytes are more than a quarter of it.

    The files are on the disk of `out`, have no name and vanish with the process.

    Raises (the returned function):
        OSError: the disk is full.
    """
    limit = memory_bytes()
    if limit is None or total <= limit // _SHARE:
        return lambda shape: np.empty(shape, np.uint8)
    folder = next(path for path in out.resolve().parents if path.is_dir())
    print(f"{total / 1e9:.1f} GB of decoded images go to a file in {folder}: the memory has {limit / 1e9:.1f} GB")
    return lambda shape: _map_file(shape, folder)


def memory_bytes() -> int | None:
    """Return the memory that this process may use, or None where the system does not tell."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    try:
        return min(physical, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return physical


def _map_file(shape: tuple[int, ...], folder: Path) -> NDArray[np.uint8]:
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # or a full disk would end the process when a page is written
            os.posix_fallocate(file.fileno(), 0, max(1, int(np.prod(shape))))
        return np.memmap(file, np.uint8, "w+", shape=shape)
