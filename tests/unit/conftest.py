"""Packages to damage."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def package(package_folder: Path, tmp_path: Path) -> Path:
    """A copy of a good package, to be damaged."""
    return Path(shutil.copytree(package_folder, tmp_path / "package"))
