"""Hostile images, sent to /classify and decoded with a limit on memory."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.serving.hostile_images import LIMIT, Outcome, corpus

ROOT = Path(__file__).parents[2]
CORPUS = corpus()
MAX_SECONDS = 60.0  # on a busy machine; the slowest takes one to four
MAX_MEGABYTES = 60


@pytest.fixture(scope="module")
def classifier(package_folder: Path) -> Iterator[TestClient]:
    settings = Settings(models=(str(package_folder),), device="cpu", threads=2, max_image_pixels=LIMIT)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(("name", "content", "outcome"), [(name, *case) for name, case in CORPUS.items()], ids=CORPUS)
def test_a_hostile_image_gets_its_expected_answer_soon(
    classifier: TestClient, name: str, content: bytes, outcome: Outcome
) -> None:
    started = time.monotonic()
    response = classifier.post("/classify", files={"file": (name, content)})

    assert time.monotonic() - started < MAX_SECONDS
    body = response.json()
    if outcome == "classified":
        assert response.status_code == 200
        top = body["results"][0]["top"]
        assert len(top) == 5
        assert 0.1 <= top[0]["score"] <= 1
    else:
        assert (response.status_code, body["error"]["code"]) == (422, outcome)
        assert name in body["error"]["message"]
        assert len(body["error"]["message"]) < 500
        assert str(ROOT) not in response.text


def test_good_images_among_hostile_ones_are_classified_as_alone(classifier: TestClient, pixels: np.ndarray) -> None:
    good = ("good.png", as_png(pixels[0]))
    expected = classifier.post("/classify", files={"file": good}).json()["results"][0]
    hostile = list(CORPUS.items())
    for start in range(0, len(hostile), 20):
        files = []
        for name, (content, _) in hostile[start : start + 20]:
            files += [("file", (name, content)), ("file", good)]

        results = classifier.post("/classify", files=files).json()["results"]

        assert [result["filename"] for result in results] == [file[0] for _, file in files]
        assert results[1::2] == [expected] * (len(files) // 2)
        for result, (_, outcome) in zip(results[::2], (case for _, case in hostile[start:]), strict=False):
            assert result.get("error", {}).get("code", "classified") == outcome


def test_no_hostile_image_takes_much_memory() -> None:
    # In its own process, whose peak memory comes from the images alone.
    script = f"""
import resource, warnings
from pdeinfer import ImageError, InputSpec
from pdeinfer.images.convert import to_array
from tests.serving.hostile_images import LIMIT, corpus
spec, files = InputSpec(8, 8, 3, (0.0,) * 3, (1.0,) * 3), corpus()
warnings.simplefilter("ignore")
to_array(files["1x1.png"][0], spec)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, (content, _) in files.items():
    try:
        to_array(content, spec, name, max_pixels=LIMIT)
    except ImageError:
        pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < {MAX_MEGABYTES}, (name, grown)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
