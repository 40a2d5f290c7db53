"""What the tests of the Predictor share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pdeinfer.predictor import Predictor


@pytest.fixture
def predictor(package_folder: Path) -> Iterator[Predictor]:
    with Predictor(package_folder, device="cpu", threads=1, batch_size=4) as predictor:
        yield predictor
