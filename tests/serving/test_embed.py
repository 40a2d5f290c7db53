"""POST /embed: features of good images, errors of bad ones and of models without features."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.images.image_makers import as_png


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a model whose features are its pixels."""
    folder = write_tiny_package(tmp_path_factory.mktemp("features") / "tiny", GREY_PRESET, has_features=True)
    settings = Settings(models=(str(folder),), device="cpu", threads=2, max_images=4, max_body_bytes=200_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, *files: tuple[str, bytes], **params: str) -> tuple[int, dict]:
    response = client.post("/embed", files=[("file", file) for file in files], params=params)
    return response.status_code, response.json()


def test_every_image_has_its_features(embedding: TestClient, pixels: np.ndarray) -> None:
    status, body = post(embedding, *((f"{i}.png", as_png(image)) for i, image in enumerate(pixels)))

    assert status == 200
    assert (body["model"], body["version"]) == ("tiny-grey", "1")
    assert [result["filename"] for result in body["results"]] == [f"{i}.png" for i in range(len(pixels))]
    assert [result["features"] for result in body["results"]] == pixels.reshape(len(pixels), 64).tolist()


def test_an_image_that_cannot_be_read_does_not_fail_the_others(embedding: TestClient, pixels: np.ndarray) -> None:
    status, body = post(embedding, ("notes.txt", b"no image"), ("a.png", as_png(pixels[0])))

    assert status == 200
    bad, good = body["results"]
    assert bad["error"]["code"] == "invalid_image"
    assert good["features"] == pixels[0].reshape(64).tolist()


@pytest.mark.parametrize(
    ("files", "params", "status", "code"),
    [
        ([("notes.txt", b"no image")], {}, 422, "invalid_image"),
        (5 * [("a.png", b"no image")], {}, 413, "too_many_images"),
        ([("a.png", b"no image")], {"top_k": "1"}, 422, "invalid_parameter"),
        ([("a.png", b"no image")], {"model": "nope"}, 404, "model_not_found"),
    ],
)
def test_wrong_requests_have_the_errors_of_classify(
    embedding: TestClient, files: list[tuple[str, bytes]], params: dict[str, str], status: int, code: str
) -> None:
    found, body = post(embedding, *files, **params)

    assert (found, body["error"]["code"]) == (status, code)


def test_a_model_without_features_says_what_to_do(client: TestClient, pixels: np.ndarray) -> None:
    status, body = post(client, ("a.png", as_png(pixels[0])))

    assert (status, body["error"]["code"]) == (422, "no_features")
    assert "export" in body["error"]["message"]


def test_classifying_is_as_ever(embedding: TestClient, client: TestClient, pixels: np.ndarray) -> None:
    answers = [
        each.post("/classify", files={"file": as_png(pixels[0])}).json()["results"] for each in (embedding, client)
    ]

    assert answers[0] == answers[1]


def test_the_document_describes_it(embedding: TestClient) -> None:
    document = embedding.get("/openapi.json").json()

    operation = document["paths"]["/embed"]["post"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/EmbedResponse")
    assert "EmbedResponse" in document["components"]["schemas"]


def test_one_request_of_more_images_than_a_batch(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    folder: Path = write_tiny_package(tmp_path_factory.mktemp("features") / "tiny", GREY_PRESET, has_features=True)
    settings = Settings(models=(str(folder),), device="cpu", threads=2, max_batch_size=2, max_images=4)
    with TestClient(create_app(settings)) as client:
        _, body = post(client, *(("a.png", as_png(image)) for image in pixels))

    assert [result["features"] for result in body["results"]] == pixels.reshape(4, 64).tolist()


@pytest.mark.parametrize("outputs", [["features"], ["probabilities", "features"], ["features", "probabilities"]])
def test_the_open_inference_protocol_gives_features_if_they_are_asked_for(
    embedding: TestClient, pixels: np.ndarray, outputs: list[str]
) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    request = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}
    answer = embedding.post("/v2/models/tiny-grey/infer", json=request).json()
    plain = embedding.post("/v2/models/tiny-grey/infer", json={"inputs": [tensor]}).json()

    assert [output["name"] for output in answer["outputs"]] == outputs
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["features"]["shape"] == [4, 64]
    assert found["features"]["data"] == pixels.ravel().tolist()
    (probabilities,) = plain["outputs"]
    assert found.get("probabilities", probabilities) == probabilities


def test_the_open_inference_protocol_describes_the_features(embedding: TestClient) -> None:
    metadata = embedding.get("/v2/models/tiny-grey").json()["outputs"]
    config = embedding.get("/v2/models/tiny-grey/config").json()["output"]

    assert metadata[1] == {"name": "features", "datatype": "FP32", "shape": [-1, 64]}
    assert config[1] == {"name": "features", "data_type": "TYPE_FP32", "dims": [64]}


def test_features_of_a_model_without_them_are_refused(client: TestClient, pixels: np.ndarray) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    response = client.post("/v2/models/tiny-grey/infer", json={"inputs": [tensor], "outputs": [{"name": "features"}]})

    assert response.status_code == 400
    assert "'features'" in response.json()["error"]
