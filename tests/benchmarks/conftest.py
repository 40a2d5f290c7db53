"""A network in the files that the benchmarks' routes load."""

from pathlib import Path

import pytest

from benchmarks.networks import pde_preset, with_side, write_networks
from pdeinfer.spec.presets import Preset


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Preset, Path]:
    """A preset with K = 2 for images of 8x8 pixels, and the folder of its files, with 4 images."""
    ((preset, folder),) = write_networks([with_side(pde_preset(2), 8)], tmp_path_factory.mktemp("networks"), 4).items()
    return preset, folder
