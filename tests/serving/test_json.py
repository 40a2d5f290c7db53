"""POST /classify with JSON, with compressed bodies, and answered line by line."""

import base64
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from pdeinfer import Predictor
from serving.app import create_app
from serving.errors import ApiError
from serving.http.uploads import _parse_json
from serving.settings import Settings
from tests.serving.conftest import MAX_BODY_BYTES, MAX_IMAGES

Png = Callable[[np.ndarray], bytes]
NDJSON = {"Accept": "application/x-ndjson"}


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def error_of(response: Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def test_images_in_base64_get_what_files_get(client: TestClient, pixels: np.ndarray, png: Png) -> None:
    images = [{"content": base64_of(png(image)), "filename": f"{i}.png"} for i, image in enumerate(pixels)]
    files = [("file", (f"{i}.png", png(image))) for i, image in enumerate(pixels)]

    response = client.post("/classify?top_k=2", json={"images": images})

    assert response.status_code == 200
    assert response.json() == client.post("/classify?top_k=2", files=files).json()


def test_what_is_no_base64_or_no_image_has_its_own_error(client: TestClient, pixels: np.ndarray, png: Png) -> None:
    good = base64_of(png(pixels[0]))
    images = [{"content": content} for content in (good, good[:-1], "!" + good, "é" * 8, base64_of(b"text"))]

    results = client.post("/classify", json={"images": images[:MAX_IMAGES]}).json()["results"]
    results += client.post("/classify", json={"images": [images[0], images[4]]}).json()["results"][1:]

    assert ["error" in result for result in results] == [False, True, True, True, True]
    assert all(result["error"]["code"] == "invalid_image" for result in results[1:])
    assert results[1]["error"]["message"].startswith("image 2: expected base64")
    assert "base64" not in results[4]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"images": "text"}', "invalid_json"),
        (b'{"images": [{}]}', "invalid_json"),
        (b'{"images": [{"content": 3}]}', "invalid_json"),
        (b'{"images": [{"content": "", "filename": "\\ud800"}]}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"images": []}', "no_images"),
    ],
)
def test_a_broken_json_body_is_400(client: TestClient, body: bytes, code: str) -> None:
    response = client.post("/classify", content=body, headers={"Content-Type": "application/json"})

    assert error_of(response)[:2] == (400, code)


def test_more_images_of_json_than_the_limit_are_413(client: TestClient) -> None:
    response = client.post("/classify", json={"images": [{"content": ""}] * (MAX_IMAGES + 1)})

    assert error_of(response)[:2] == (413, "too_many_images")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies_are_inflated(client: TestClient, pixels: np.ndarray, png: Png, encoding: str) -> None:
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    image = png(pixels[0])
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + image + b"\r\n--b--\r\n"
    bodies = {
        "image/png": image,
        "application/json": json.dumps({"images": [{"content": base64_of(image)}]}).encode(),
        "multipart/form-data; boundary=b": form,
    }

    for content_type, body in bodies.items():
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        assert client.post("/classify", content=compress(body), headers=headers).status_code == 200, content_type


def test_a_body_that_inflates_beyond_the_limit_is_413(client: TestClient) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}

    response = client.post("/classify", content=gzip.compress(bytes(MAX_BODY_BYTES + 1)), headers=headers)

    assert error_of(response)[:2] == (413, "body_too_large")


def lines_of(response: Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_lines_are_the_results_in_their_order(client: TestClient, pixels: np.ndarray, png: Png) -> None:
    files = [("file", (f"{i}.png", png(image))) for i, image in enumerate(pixels)]
    files[2] = ("file", ("bad.txt", b"no image"))

    response = client.post("/classify", files=files, headers=NDJSON)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert lines_of(response) == client.post("/classify", files=files).json()["results"]


def test_a_large_request_is_answered_in_parts(
    package_folder: Path, pixels: np.ndarray, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the time is over in between, the rest of the lines say so."""
    predict_proba = Predictor.predict_proba
    computed: list[int] = []

    def slower_and_slower(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        computed.append(len(images))
        if len(computed) > 3:  # warm-up and two batches
            time.sleep(3)
        return predict_proba(predictor, images)

    monkeypatch.setattr(Predictor, "predict_proba", slower_and_slower)
    settings = Settings(
        models=(str(package_folder),), device="cpu", threads=1, max_batch_size=2, request_timeout=2, max_images=8
    )
    images = [{"content": base64_of(png(pixels[i % 4]))} for i in range(8)]
    with TestClient(create_app(settings)) as client:
        lines = lines_of(client.post("/classify", json={"images": images}, headers=NDJSON))

    assert len(lines) == 8
    codes = [line.get("error", {}).get("code") for line in lines]
    assert codes[0] is None
    assert codes[-1] == "deadline_exceeded"
    assert codes == sorted(codes, key=lambda code: code is not None)


def test_what_fails_before_the_first_line_has_its_status(client: TestClient) -> None:
    assert client.post("/classify?model=other", json={"images": []}, headers=NDJSON).status_code == 404
    assert client.post("/classify", json={"images": []}, headers=NDJSON).status_code == 400


@pytest.mark.parametrize("item", [b"1,", b"{},", b'{"content":""},', b'"x":[],'])
def test_json_of_more_values_than_its_images_need_is_413_before_it_is_parsed(item: bytes) -> None:
    body = b'{"images":[' + item * (2**20 // len(item))
    tracemalloc.start()
    with pytest.raises(ApiError) as raised:
        _parse_json(body, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (raised.value.status, raised.value.code) == (413, "json_too_large")
    assert peak < 10_000


def test_as_many_images_as_the_limit_are_parsed_whatever_their_names_hold() -> None:
    images = [{"content": "", "filename": "a,b,c,{}[].png", "other": [1, 2, 3]}] * 64

    assert len(_parse_json(json.dumps({"images": images}).encode(), 64)) == 64
