"""The V2 routes: metadata, health, inference and errors."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from pdeinfer import Predictor, Preset, __version__
from serving.engine.models import Models
from serving.errors import DeadlineError, InferenceError, OverloadedError
from serving.http.body import MAX_SMALL_BYTES, PARSED_AT_ONCE
from serving.http.v2.infer import COMPRESSED_FROM
from tests.conftest import GREY_PRESET, RGB_PRESET, Probabilities
from tests.images.image_makers import as_png
from tests.serving.conftest import MAX_BODY_BYTES, MAX_IMAGES
from tests.serving.v2.conftest import Request

Binary = Callable[..., tuple[bytes, str]]
INFER = "/v2/models/tiny-grey/infer"


@pytest.fixture
def models(client: TestClient) -> Models:
    assert isinstance(client.app, FastAPI)
    models: Models = client.app.state.models
    return models


@pytest.fixture
def one_image(pixels: np.ndarray, request_object: Request) -> dict[str, Any]:
    return request_object(pixels[:1])


def error_of(response: Response) -> tuple[int, str]:
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_describes_itself(client: TestClient, path: str) -> None:
    assert client.get(path).json() == {
        "name": "pdeinfer",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification", "model_configuration"],
    }


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
def test_repository_index_lists_the_served_versions(client: TestClient, body: bytes) -> None:
    assert client.post("/v2/repository/index", content=body).json() == [
        {"name": "tiny-grey", "version": "1", "state": "READY", "reason": ""},
        {"name": "tiny-rgb", "version": "1", "state": "READY", "reason": ""},
    ]


def test_repository_index_takes_a_compressed_body(client: TestClient) -> None:
    headers = {"Content-Encoding": "gzip"}

    assert client.post("/v2/repository/index", content=gzip.compress(b"{}"), headers=headers).status_code == 200
    assert client.post("/v2/repository/index", content=gzip.compress(b"{"), headers=headers).status_code == 400
    assert client.post("/v2/repository/index", content=b"", headers=headers).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": "often"}', b'{"ready": 0}', b'{"ready": null}'])
def test_repository_index_refuses_another_body(client: TestClient, body: bytes) -> None:
    assert client.post("/v2/repository/index", content=body).status_code == 400


def test_repository_index_refuses_a_large_body_before_it_is_parsed(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        yield b"{" + b" " * MAX_SMALL_BYTES

    status, message = error_of(client.post("/v2/repository/index", content=body()))

    assert status == 413
    assert f"{MAX_SMALL_BYTES} bytes" in message


def test_server_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_stopping_server_is_alive_but_not_ready(client: TestClient, models: Models) -> None:
    models.draining = True
    try:
        response = client.get("/v2/health/ready")
        assert client.get("/v2/health/live").status_code == 200
    finally:
        models.draining = False

    assert error_of(response) == (503, "no model is served, or the server is stopping")


@pytest.mark.parametrize("path", ["/v2/models/tiny-rgb", "/v2/models/tiny-rgb/versions/1"])
def test_model_is_described(client: TestClient, path: str) -> None:
    assert client.get(path).json() == {
        "name": "tiny-rgb",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, *input_shape(RGB_PRESET)]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, len(RGB_PRESET.labels)]}],
    }
    assert client.get(f"{path}/ready").json() == {"name": "tiny-rgb", "ready": True}
    assert client.get(f"{path}/config").json() == {
        "name": "tiny-rgb",
        "platform": "onnxruntime_onnx",
        "max_batch_size": MAX_IMAGES,
        "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": list(input_shape(RGB_PRESET))}],
        "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [len(RGB_PRESET.labels)]}],
    }


def input_shape(preset: Preset) -> tuple[int, int, int]:
    return preset.input.height, preset.input.width, preset.input.channels


@pytest.mark.parametrize("path", [INFER, "/v2/models/tiny-grey/versions/1/infer"])
def test_json_pixels_get_their_probabilities_and_the_id(
    client: TestClient, pixels: np.ndarray, request_object: Request, tiny_probabilities: Probabilities, path: str
) -> None:
    response = client.post(path, json=request_object(pixels, id="42"))

    assert response.status_code == 200
    body = response.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny-grey", "1", "42")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [4, 10])
    np.testing.assert_allclose(
        np.reshape(output["data"], (4, 10)), tiny_probabilities(GREY_PRESET, pixels), rtol=0, atol=1e-6
    )


def test_binary_pixels_get_binary_probabilities(
    client: TestClient, pixels: np.ndarray, binary_request: Binary, tiny_probabilities: Probabilities
) -> None:
    body, length = binary_request(pixels, parameters={"binary_data_output": True})

    response = client.post(INFER, content=body, headers={"Inference-Header-Content-Length": length})

    assert response.headers["content-type"] == "application/octet-stream"
    json_length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:json_length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 160}
    probabilities = np.frombuffer(response.content[json_length:], "<f4").reshape(4, 10)
    np.testing.assert_allclose(probabilities, tiny_probabilities(GREY_PRESET, pixels), rtol=0, atol=1e-6)


def test_classes_equal_those_of_classify(client: TestClient, pixels: np.ndarray, request_object: Request) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 3}}]

    (output,) = client.post(INFER, json=request_object(pixels, outputs=outputs)).json()["outputs"]

    files = [("file", (f"{i}", as_png(image))) for i, image in enumerate(pixels)]
    results = client.post("/classify", files=files, params={"top_k": 3}).json()["results"]
    expected = [(entry["index"], entry["label"]) for result in results for entry in result["top"]]
    found = [text.split(":") for text in output["data"]]
    assert [(int(index), label) for _, index, label in found] == expected
    assert [float(value) for value, _, _ in found] == pytest.approx(
        [entry["score"] for result in results for entry in result["top"]], abs=1e-7
    )


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_request_gets_the_same_response(
    client: TestClient, pixels: np.ndarray, binary_request: Binary, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body, length = binary_request(pixels)
    headers = {"Inference-Header-Content-Length": length}

    plain = client.post(INFER, content=body, headers=headers)
    compressed = client.post(INFER, content=compress(body), headers={**headers, "Content-Encoding": encoding})

    assert compressed.status_code == 200
    assert compressed.json() == plain.json()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_large_response_is_compressed_for_a_client_that_accepts_it(
    client: TestClient, pixels: np.ndarray, request_object: Request, encoding: str
) -> None:
    def post(images: np.ndarray, accept: str) -> Response:
        return client.post(INFER, json=request_object(images, id="7" * 512), headers={"Accept-Encoding": accept})

    response = post(pixels, encoding)

    assert len(response.content) >= COMPRESSED_FROM
    assert response.headers["content-encoding"] == encoding
    assert int(response.headers["content-length"]) < len(response.content)
    assert response.json() == post(pixels, "identity").json()
    assert "content-encoding" not in post(pixels, "identity").headers
    assert "content-encoding" not in post(pixels[:1], encoding).headers


def test_large_json_request_gets_the_same_response_as_a_small_one(
    client: TestClient, pixels: np.ndarray, request_object: Request
) -> None:
    small = json.dumps(request_object(pixels))
    large = small + " " * PARSED_AT_ONCE

    assert client.post(INFER, content=large).json() == client.post(INFER, content=small).json()


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/nowhere", 404, "Not Found"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("GET", "/v2/health/live/", 404, "Not Found"),
        ("POST", "/v2/repository/models/tiny-grey/load", 404, "Not Found"),
        ("GET", INFER, 405, "Method Not Allowed"),
        ("POST", "/v2", 405, "Method Not Allowed"),
        ("GET", "/v2/models/digits", 404, "no model 'digits' is served, only: tiny-grey, tiny-rgb"),
        ("GET", "/v2/models/digits/ready", 404, "no model 'digits' is served, only: tiny-grey, tiny-rgb"),
        ("POST", "/v2/models/digits/infer", 404, "no model 'digits' is served, only: tiny-grey, tiny-rgb"),
        ("GET", "/v2/models/tiny-rgb/versions/2", 404, "no version '2' of 'tiny-rgb' is served, only: 1"),
        ("POST", "/v2/models/tiny-rgb/versions/x/infer", 404, "no version 'x' of 'tiny-rgb' is served, only: 1"),
        ("POST", INFER, 400, "the JSON of the request is not valid: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_errors_have_the_shape_of_the_protocol(
    client: TestClient, method: str, path: str, status: int, message: str
) -> None:
    assert error_of(client.request(method, path)) == (status, message)


@pytest.mark.parametrize("path", [INFER, "/v2/models/tiny-grey/versions/1/infer"])
@pytest.mark.parametrize("query", ["version=7", "model=tiny-rgb", "top_k=1", "a"])
def test_query_parameter_of_an_inference_is_422_and_named(
    client: TestClient, one_image: dict[str, Any], path: str, query: str
) -> None:
    status, message = error_of(client.post(f"{path}?{query}", json=one_image))

    assert status == 422
    assert repr(query.partition("=")[0]) in message


@pytest.mark.parametrize("parameters", [{}, {"binary_data_output": True}])
def test_probabilities_that_are_not_finite_are_500_in_every_format(
    client: TestClient, pixels: np.ndarray, request_object: Request, monkeypatch: pytest.MonkeyPatch, parameters: Any
) -> None:
    monkeypatch.setattr(Predictor, "predict_proba", lambda _, images: np.full((len(images), 10), np.nan, np.float32))

    status, message = error_of(client.post(INFER, json=request_object(pixels, parameters=parameters)))

    assert (status, message) == (500, str(InferenceError()))


def test_error_says_what_was_expected_and_what_came(
    client: TestClient, pixels: np.ndarray, request_object: Request
) -> None:
    response = client.post("/v2/models/tiny-rgb/infer", json=request_object(pixels))

    expected = f"the shape of 'image': expected [N, {', '.join(map(str, input_shape(RGB_PRESET)))}] with N from 1 to 4"
    assert error_of(response) == (400, f"{expected}, got [4, 8, 8, 1]")


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        ({"Content-Encoding": "br"}, b"", 415, "expected the content encoding gzip or deflate, got 'br'"),
        ({"Content-Encoding": "gzip"}, b"{}", 400, "the body is not gzip data"),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(MAX_BODY_BYTES + 1)), 413, "an inflated request body"),
        ({}, bytes(MAX_BODY_BYTES + 1), 413, "a request body may have at most 200000 bytes"),
        ({"Inference-Header-Content-Length": "x"}, b"{}", 400, "Inference-Header-Content-Length: expected"),
    ],
)
def test_wrong_body_is_rejected(
    client: TestClient, headers: dict[str, str], body: bytes, status: int, message: str
) -> None:
    response = client.post(INFER, content=body, headers=headers)

    assert error_of(response)[0] == status
    assert error_of(response)[1].startswith(message)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OverloadedError(), 503, "the server is at capacity: try again later"),
        (DeadlineError(), 504, "the request could not be answered in time"),
        (RuntimeError("secret"), 500, "the server failed to answer; its log has the details"),
    ],
)
def test_engine_failures_have_their_status(
    client: TestClient,
    models: Models,
    one_image: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    message: str,
) -> None:
    async def fail(*_: Any) -> np.ndarray:
        raise error

    monkeypatch.setattr(models.get("tiny-grey"), "infer", fail)

    response = client.post(INFER, json=one_image)

    assert error_of(response) == (status, message)
    assert ("retry-after" in response.headers) is (status == 503)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        if path.startswith("/v2"):
            for operation in methods.values():
                yield path, operation


def test_openapi_document_describes_every_route_and_its_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    found = dict(operations(document))
    model_paths = [
        f"/v2/models/{{model}}{version}{end}"
        for version in ("", "/versions/{version}")
        for end in ("", "/ready", "/config", "/infer")
    ]
    assert set(found) == {"/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", *model_paths}
    for path, operation in found.items():
        assert operation["summary"]
        expected = {name for name in ("model", "version") if f"{{{name}}}" in path}
        if path.endswith("/infer"):
            expected.add("Inference-Header-Content-Length")
            assert "Inference-Header-Content-Length" in operation["responses"]["200"]["headers"]
        assert {parameter["name"] for parameter in operation.get("parameters", [])} == expected
        for status, answer in operation["responses"].items():
            if status != "200":
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/V2Error"}
                for example in content.get("examples", {}).values():
                    assert isinstance(example["value"]["error"], str)
