"""Answers that name a thousand classes: ranked and encoded in threads, and counted while they are sent."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pdeinfer import Prediction, Predictor
from serving.app import create_app
from serving.http.v2 import infer
from serving.settings import Settings
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.images.image_makers import as_png

TOTAL_BYTES = 30_000
LABELS = tuple(f"class {number}" for number in range(1000))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, package_folder: Path) -> Iterator[TestClient]:
    """A client of the models "large", the default, of a thousand classes, and "tiny-grey" of ten."""
    preset = replace(GREY_PRESET, name="large", labels=LABELS)
    folder = write_tiny_package(tmp_path_factory.mktemp("large") / "large", preset)
    limits = {"max_images": 4, "max_body_bytes": TOTAL_BYTES, "max_total_bytes": TOTAL_BYTES}
    settings = Settings(models=(str(folder), str(package_folder)), device="cpu", threads=2, **limits)
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which answers are ranked and encoded."""
    names: list[str] = []

    def note(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def noting(*arguments: Any) -> Any:
            names.append(threading.current_thread().name)
            return function(*arguments)

        monkeypatch.setattr(owner, name, noting)

    note(Predictor, "rank")
    note(Prediction, "to_dict")
    note(infer, "encode_response")
    return names


def classify(client: TestClient, images: list[bytes], accept: str = "*/*", **params: Any) -> Any:
    files = [("file", (f"{number}.png", image)) for number, image in enumerate(images)]
    return client.post("/classify", files=files, params=params, headers={"Accept": accept})


def infer_v2(client: TestClient, pixels: np.ndarray, model: str) -> Any:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})


@pytest.mark.parametrize(("model", "is_large"), [("large", True), ("tiny-grey", False)])
def test_only_large_answers_are_ranked_and_encoded_in_threads(
    client: TestClient, pixels: np.ndarray, threads: list[str], model: str, is_large: bool
) -> None:
    images = [as_png(image) for image in pixels]

    for accept in ("application/json", "application/x-ndjson"):
        classify(client, images, accept, model=model, top_k=700)
    infer_v2(client, pixels, model)

    assert len(threads) == 2 * 2 * len(images) + 1
    assert {name.startswith("classify_") for name in threads} == {is_large}


def test_a_large_answer_is_complete_and_in_order(client: TestClient, pixels: np.ndarray) -> None:
    (result,) = classify(client, [as_png(pixels[0])], top_k=200).json()["results"]
    rows = infer_v2(client, pixels[:1], "large").json()["outputs"][0]["data"]

    best = np.argsort(-np.array(rows), kind="stable")[:200]
    assert [entry["index"] for entry in result["top"]] == best.tolist()
    assert [entry["label"] for entry in result["top"]] == [LABELS[index] for index in best]


def test_answers_count_among_the_bytes_that_the_server_holds(client: TestClient, pixels: np.ndarray) -> None:
    images = [as_png(image) for image in pixels]

    for accept in ("application/json", "application/x-ndjson"):
        assert classify(client, images, accept, top_k=1).status_code == 200
        refused = classify(client, images, accept, top_k=1000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert infer_v2(client, pixels, "tiny-grey").status_code == 200
    assert infer_v2(client, pixels, "large").status_code == 503
    assert classify(client, images, top_k=1).status_code == 200
