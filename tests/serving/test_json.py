"""POST /classify with JSON, with compressed bodies, and with responses line by line."""

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
from serving.errors import RequestError
from serving.http.classify import PARAMETERS
from serving.http.json_images import decode_base64, parse_json_images
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.serving.conftest import MAX_BODY_BYTES, MAX_IMAGES

NDJSON = {"Accept": "application/x-ndjson"}


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def error_of(response: Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def test_base64_images_get_the_same_results_as_files(client: TestClient, pixels: np.ndarray) -> None:
    images = [{"content": base64_of(as_png(image)), "filename": f"{i}.png"} for i, image in enumerate(pixels)]
    files = [("file", (f"{i}.png", as_png(image))) for i, image in enumerate(pixels)]

    response = client.post("/classify?top_k=2", json={"images": images})

    assert response.status_code == 200
    assert response.json() == client.post("/classify?top_k=2", files=files).json()


@pytest.mark.parametrize(
    "wrong", ["!", "A", "AAAAA", "AA=A", "é" * 8, "data:image/png,AAAA", "data:;base64", base64_of(b"text")]
)
def test_image_that_is_not_base64_or_not_an_image_has_its_own_error(
    client: TestClient, pixels: np.ndarray, wrong: str
) -> None:
    good = base64_of(as_png(pixels[0]))
    images = [{"content": good}, {"content": wrong}, {"content": wrong, "filename": "b.png"}, good]

    first, second, third, fourth = client.post("/classify", json={"images": images}).json()["results"]

    assert first == fourth
    assert "label" in first
    assert second["error"]["code"] == third["error"]["code"] == "invalid_image"
    assert second["error"]["message"].startswith("image 2: expected ")
    assert third["error"]["message"].startswith("b.png: expected ")


def test_broken_base64_alone_is_422(client: TestClient) -> None:
    response = client.post("/classify", json={"images": [{"content": "!"}]})

    assert error_of(response)[:2] == (422, "invalid_image")


@pytest.mark.parametrize("size", range(60, 66))
@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.rstrip("="),
        lambda text: "\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n",
        lambda text: "\r\n".join(text[i : i + 64] for i in range(0, len(text), 64)),
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"data:;base64,{text}",
        lambda text: f" DATA:image/png;name=a.png;BASE64,{text}",
        lambda text: "data:image/png;base64," + text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    ],
    ids=[
        *("standard", "no padding", "lines of 76", "lines of 64", "URL-safe", "URL-safe without padding"),
        *("data URL", "data URL without type", "data URL in capitals", "data URL with percent signs"),
    ],
)
def test_base64_is_accepted_as_tools_write_it(size: int, write: Callable[[str], str]) -> None:
    content = bytes(range(255, 255 - size, -1))  # every letter of the alphabet

    assert decode_base64(write(base64_of(content))) == content


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/classify", "model"),
        ("/classify", "top_k"),
        ("/embed", "model"),
        *(("/inspect", parameter) for parameter in ("model", "layer", "dt", "num_steps", "advection", "diffusion")),
    ],
)
@pytest.mark.parametrize("as_form", [False, True])
def test_a_query_parameter_in_a_body_is_rejected_with_the_address_it_belongs_to(
    client: TestClient, path: str, parameter: str, as_form: bool
) -> None:
    if as_form:
        response = client.post(path, files={"file": ("a.png", b"")}, data={parameter: "1"})
    else:
        response = client.post(path, json={"images": [{"content": ""}], parameter: "1"})

    assert error_of(response)[:2] == (400, "invalid_form" if as_form else "invalid_json")
    assert f"{path}?{parameter}=" in error_of(response)[2]


@pytest.mark.parametrize("path", ["/classify", "/embed", "/inspect"])
def test_an_unknown_field_of_a_json_body_is_rejected_by_name(client: TestClient, path: str) -> None:
    for name in ("topk", "Images", "x" * 10_000):
        response = client.post(path, json={"images": [{"content": ""}], name: 1})

        assert error_of(response)[:2] == (400, "invalid_json")
        assert name[:5] in error_of(response)[2]
        assert len(error_of(response)[2]) < 200


def test_an_unknown_field_of_an_image_is_rejected_by_name_and_place(client: TestClient) -> None:
    for name, message in (("model", "/classify?model="), ("file_name", "content and filename")):
        response = client.post("/classify", json={"images": ["", {"content": "", name: "x"}]})

        assert error_of(response)[:2] == (400, "invalid_json")
        assert error_of(response)[2].startswith(f"images.1.'{name}': ")
        assert message in error_of(response)[2]


@pytest.mark.parametrize("filler", [0, 100_000])
def test_a_byte_order_mark_before_the_json_is_skipped(client: TestClient, pixels: np.ndarray, filler: int) -> None:
    body = json.dumps({"images": [" " * filler + base64_of(as_png(pixels[0]))]}).encode("utf-8-sig")

    response = client.post("/classify", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 200


def test_a_parameter_of_another_operation_is_not_said_to_belong_in_the_query(client: TestClient) -> None:
    for path in ("/embed", "/inspect"):
        response = client.post(path, json={"images": [{"content": ""}], "top_k": 1})

        assert error_of(response)[:2] == (400, "invalid_json")
        assert "?" not in error_of(response)[2]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"images": "text"}', "invalid_json"),
        (b'{"images": [{}]}', "invalid_json"),
        (b'{"images": [{"content": 3}]}', "invalid_json"),
        (b'{"images": [3]}', "invalid_json"),
        (b'{"images": [null]}', "invalid_json"),
        (b'{"images": [{"content": "", "filename": "\\ud800"}]}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"images": []}', "no_images"),
    ],
)
def test_malformed_json_body_is_400(client: TestClient, body: bytes, code: str) -> None:
    response = client.post("/classify", content=body, headers={"Content-Type": "application/json"})

    assert error_of(response)[:2] == (400, code)


@pytest.mark.parametrize("image", [3, None, ["iVBORw0KGgo="]])
def test_an_image_of_another_json_type_is_told_that_a_string_or_an_object_is_expected(
    client: TestClient, image: object
) -> None:
    response = client.post("/classify", json={"images": [{"content": ""}, image]})

    assert error_of(response)[:2] == (400, "invalid_json")
    assert error_of(response)[2].startswith("images.1: ")
    assert {"string", "object"} <= set(error_of(response)[2].split())


def test_more_json_images_than_the_limit_are_413(client: TestClient) -> None:
    response = client.post("/classify", json={"images": [{"content": ""}] * (MAX_IMAGES + 1)})

    assert error_of(response)[:2] == (413, "too_many_images")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies_of_every_type_are_accepted(client: TestClient, pixels: np.ndarray, encoding: str) -> None:
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    image = as_png(pixels[0])
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + image + b"\r\n--b--\r\n"
    bodies = {
        "image/png": image,
        "application/json": json.dumps({"images": [{"content": base64_of(image)}]}).encode(),
        "multipart/form-data; boundary=b": form,
    }

    for content_type, body in bodies.items():
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        assert client.post("/classify", content=compress(body), headers=headers).status_code == 200, content_type


@pytest.mark.parametrize(
    ("encodings", "status"),
    [(["GZip"], 200), (["gzip, identity"], 200), (["identity", "gzip"], 200), (["gzip", "gzip"], 415)],
)
def test_content_encoding_may_be_on_several_lines(
    client: TestClient, pixels: np.ndarray, encodings: list[str], status: int
) -> None:
    headers = [("Content-Type", "image/png"), *(("Content-Encoding", each) for each in encodings)]

    response = client.post("/classify", content=gzip.compress(as_png(pixels[0])), headers=headers)

    assert response.status_code == status


def test_a_body_that_inflates_beyond_the_limit_is_413(client: TestClient) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}

    response = client.post("/classify", content=gzip.compress(bytes(MAX_BODY_BYTES + 1)), headers=headers)

    assert error_of(response)[:2] == (413, "body_too_large")


def lines_of(response: Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_ndjson_lines_are_the_results_in_order(client: TestClient, pixels: np.ndarray) -> None:
    files = [("file", (f"{i}.png", as_png(image))) for i, image in enumerate(pixels)]
    files[2] = ("file", ("bad.txt", b"no image"))

    response = client.post("/classify", files=files, headers=NDJSON)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert lines_of(response) == client.post("/classify", files=files).json()["results"]


@pytest.mark.parametrize(
    ("accept", "is_ndjson"),
    [
        (["Application/X-NDJSON"], True),
        (["application/json;q=0.5, application/x-ndjson; q=0.9"], True),
        (["text/html", "application/x-ndjson;charset=utf-8"], True),
        (["application/x-ndjson, */*;q=0.1"], True),
        (["application/x-ndjson, */*"], True),
        (["application/x-ndjson;q=0.1, */*"], False),
        (["application/x-ndjson;q=.5, application/*"], False),
        (["application/x-ndjson, application/json"], False),
        (["application/json, application/x-ndjson;q=0.1"], False),
        (["application/x-ndjson;q=0.1", "application/json"], False),
        (["application/x-ndjson;q=0"], False),
        (["application/x-ndjson;q=0.0000"], False),
        (["application/x-ndjsonfoo"], False),
        (["*/*"], False),
    ],
)
def test_ndjson_is_sent_to_clients_that_prefer_it_to_json(
    client: TestClient, pixels: np.ndarray, accept: list[str], is_ndjson: bool
) -> None:
    headers = [("Accept", each) for each in accept]

    response = client.post("/classify", files={"file": as_png(pixels[0])}, headers=headers)

    assert response.headers["content-type"] == ("application/x-ndjson" if is_ndjson else "application/json")


def test_ndjson_lines_after_the_deadline_say_so(
    package_folder: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    images = [{"content": base64_of(as_png(pixels[i % 4]))} for i in range(8)]
    with TestClient(create_app(settings)) as client:
        lines = lines_of(client.post("/classify", json={"images": images}, headers=NDJSON))

    assert len(lines) == 8
    codes = [line.get("error", {}).get("code") for line in lines]
    assert codes[0] is None
    assert codes[-1] == "deadline_exceeded"
    assert codes == sorted(codes, key=lambda code: code is not None)


def test_error_before_the_first_ndjson_line_has_its_status(client: TestClient) -> None:
    assert client.post("/classify?model=other", json={"images": []}, headers=NDJSON).status_code == 404
    assert client.post("/classify", json={"images": []}, headers=NDJSON).status_code == 400


@pytest.mark.parametrize("item", [b"1,", b"{},", b'{"content":""},', b'"x":[],', b'"data:,",'])
def test_json_with_more_values_than_its_images_need_is_rejected_before_it_is_parsed(item: bytes) -> None:
    body = b'{"images":[' + item * (2**20 // len(item))
    tracemalloc.start()
    with pytest.raises(RequestError) as raised:
        parse_json_images(body, 64, PARAMETERS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert raised.value.code == "json_too_large"
    assert peak < 3 * len(body)  # parsed, it would take a hundred times as much


def test_largest_allowed_number_of_json_images_is_parsed_whatever_their_names_hold() -> None:
    images = [{"content": "", "filename": "a,b,c,{}[],1,2,3.png"}] * 64

    assert len(parse_json_images(json.dumps({"images": images}).encode(), 64, PARAMETERS)) == 64
