"""Images to send, the application in this process, and a brake for its networks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.serving.brake import Brake

MAX_BODY_BYTES = 200_000
MAX_IMAGES = 4
MAX_IMAGE_PIXELS = 10_000


@pytest.fixture(scope="package")
def client(package_folder: Path, rgb_package_folder: Path) -> Iterator[TestClient]:
    """A client of the application with the models "tiny-grey", the default, and "tiny-rgb"."""
    settings = Settings(
        models=(str(package_folder), str(rgb_package_folder)),
        device="cpu",
        threads=2,
        max_body_bytes=MAX_BODY_BYTES,
        max_images=MAX_IMAGES,
        max_image_pixels=MAX_IMAGE_PIXELS,
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="package")
def pixels() -> np.ndarray:
    """Four grey images of the size of "tiny-grey": uint8 (4, 8, 8, 1)."""
    return np.random.default_rng(7).integers(0, 256, (4, 8, 8, 1), np.uint8)


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brake]:
    """A brake for the networks of the test's models, which is off at first and at the end."""
    brake = Brake(monkeypatch)
    yield brake
    brake.released.set()
