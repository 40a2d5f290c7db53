"""POST /classify: what is answered to good images, bad images and bad requests."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from pdeinfer import Predictor
from pdeinfer.images.isolation import IsolatedDecoders
from serving.app import create_app
from serving.engine.decoder import CheapImages
from serving.http.operations import to_json
from serving.settings import Settings
from tests.conftest import GREY_PRESET, RGB_PRESET, Probabilities
from tests.images.image_makers import as_png, avif, heic
from tests.serving.conftest import MAX_BODY_BYTES, MAX_IMAGE_PIXELS, MAX_IMAGES


def post_files(client: TestClient, *files: tuple[str, bytes], **params: Any) -> Response:
    return client.post("/classify", files=[("file", file) for file in files], params=params)


def error_of(response: Response) -> tuple[int, str, str]:
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message"]
    return response.status_code, body["error"]["code"], body["error"]["message"]


def test_raw_image_gets_the_probabilities_of_the_default_model(
    client: TestClient, pixels: np.ndarray, tiny_probabilities: Probabilities
) -> None:
    response = client.post("/classify", content=as_png(pixels[0]), headers={"Content-Type": "image/png"})

    expected = tiny_probabilities(GREY_PRESET, pixels[:1])[0]
    order = np.argsort(-expected)[:5]
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == "tiny-grey"
    (result,) = body["results"]
    assert result["filename"] is None
    assert (result["label"], result["index"]) == (str(order[0]), order[0])
    assert [entry["index"] for entry in result["top"]] == list(order)
    assert [entry["label"] for entry in result["top"]] == [str(index) for index in order]
    assert [entry["score"] for entry in result["top"]] == pytest.approx(expected[order], abs=1e-6)
    assert result["score"] == result["top"][0]["score"]


def test_results_are_in_the_order_of_the_files(
    client: TestClient, pixels: np.ndarray, tiny_probabilities: Probabilities
) -> None:
    response = post_files(client, *((f"{i}.png", as_png(image)) for i, image in enumerate(pixels)))

    results = response.json()["results"]
    assert response.status_code == 200
    assert [result["filename"] for result in results] == ["0.png", "1.png", "2.png", "3.png"]
    expected = tiny_probabilities(GREY_PRESET, pixels)
    assert [result["index"] for result in results] == list(expected.argmax(axis=1))
    assert [result["score"] for result in results] == pytest.approx(expected.max(axis=1), abs=1e-6)


def test_query_chooses_the_model_and_top_k(client: TestClient, pixels: np.ndarray) -> None:
    response = post_files(client, ("a.png", as_png(pixels[0])), model="tiny-rgb", top_k=2)

    body = response.json()
    assert body["model"] == "tiny-rgb"
    assert len(body["results"][0]["top"]) == 2
    assert body["results"][0]["label"] in RGB_PRESET.labels


@pytest.mark.parametrize("encoder", [avif, heic])
def test_an_avif_or_heic_is_classified(client: TestClient, pixels: np.ndarray, encoder: Callable[..., bytes]) -> None:
    content = encoder(PIL.Image.fromarray(pixels[0, ..., 0]), quality=100)
    with (
        Predictor(client.app.state.models.get("tiny-grey").predictor._package) as predictor,  # type: ignore[attr-defined]
        IsolatedDecoders() as decoders,
    ):
        expected = predictor.predict(decoders.to_array(content, predictor.info().input), top_k=1)

    (result,) = post_files(client, ("photo", content)).json()["results"]

    assert (result["label"], result["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-6))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_an_answer_below_the_threshold_has_no_label(
    package_folder: Path, pixels: np.ndarray, tiny_probabilities: Probabilities, threshold: float
) -> None:
    expected = tiny_probabilities(GREY_PRESET, pixels).max(axis=1)
    settings = Settings(models=(str(package_folder),), device="cpu", threads=1, threshold=threshold)
    with TestClient(create_app(settings)) as client:
        results = post_files(client, *(("a.png", as_png(image)) for image in pixels)).json()["results"]

    assert [result["score"] for result in results] == pytest.approx(expected, abs=1e-6)
    for result in results:
        best = result["top"][0]
        is_known = result["score"] >= threshold
        assert result["score"] == best["score"]
        assert (result["label"], result["index"]) == ((best["label"], best["index"]) if is_known else (None, None))


@pytest.mark.parametrize("top_k", [10, 11, 10**30])
def test_top_k_beyond_the_number_of_classes_returns_all_of_them(
    client: TestClient, pixels: np.ndarray, top_k: int
) -> None:
    top = post_files(client, ("a.png", as_png(pixels[0])), top_k=top_k).json()["results"][0]["top"]

    assert sorted(entry["index"] for entry in top) == list(range(10))
    assert sum(entry["score"] for entry in top) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("content_type", ["image/png", "image/whatever", "IMAGE/PNG; a=b", "application/octet-stream"])
def test_raw_body_may_have_any_image_content_type(client: TestClient, pixels: np.ndarray, content_type: str) -> None:
    response = client.post("/classify", content=as_png(pixels[0]), headers={"Content-Type": content_type})

    assert response.status_code == 200


def test_files_may_have_any_field_name(client: TestClient, pixels: np.ndarray) -> None:
    files = {"first": ("a.png", as_png(pixels[0])), "second": ("b.png", as_png(pixels[1]))}

    response = client.post("/classify", files=files)

    assert [result["filename"] for result in response.json()["results"]] == ["a.png", "b.png"]


def test_bad_image_has_its_own_error_and_does_not_fail_the_others(client: TestClient, pixels: np.ndarray) -> None:
    good = as_png(pixels[0])
    big = as_png(np.zeros((101, 100, 1), np.uint8))

    response = post_files(
        client, ("bad.txt", b"no image"), ("a.png", good), ("cut.png", good[: len(good) // 2]), ("big.png", big)
    )

    results = response.json()["results"]
    assert response.status_code == 200
    assert [result["filename"] for result in results] == ["bad.txt", "a.png", "cut.png", "big.png"]
    assert [result.get("error", {}).get("code") for result in results] == [
        "invalid_image",
        None,
        "invalid_image",
        "image_too_large",
    ]
    assert results[0]["error"]["message"].startswith("bad.txt: expected")
    assert str(MAX_IMAGE_PIXELS) in results[3]["error"]["message"]
    assert results[1] == post_files(client, ("a.png", good)).json()["results"][0]


def test_request_of_bad_images_only_is_422_with_the_first_error(client: TestClient) -> None:
    status, code, message = error_of(post_files(client, ("a.txt", b"no image"), ("b.txt", b"")))

    assert (status, code) == (422, "invalid_image")
    assert message.startswith("a.txt: expected")


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_undecodable_raw_body_is_422_and_named_by_its_number(client: TestClient, content: bytes) -> None:
    response = client.post("/classify", content=content, headers={"Content-Type": "image/png"})

    status, code, message = error_of(response)
    assert (status, code) == (422, "invalid_image")
    assert message.startswith("image 1: expected")


def test_image_of_too_many_pixels_is_422(client: TestClient) -> None:
    response = post_files(client, ("big.png", as_png(np.zeros((101, 100, 1), np.uint8))))

    assert error_of(response)[:2] == (422, "image_too_large")


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}]
)
def test_other_content_types_are_415(client: TestClient, headers: dict[str, str]) -> None:
    status, code, message = error_of(client.post("/classify", content=b"image", headers=headers))

    assert (status, code) == (415, "unsupported_media_type")
    assert "multipart/form-data" in message


def test_unknown_model_is_404_and_the_message_names_the_served_ones(client: TestClient) -> None:
    status, code, message = error_of(post_files(client, ("a.png", b""), model="other"))

    assert (status, code) == (404, "model_not_found")
    assert "tiny-grey, tiny-rgb" in message


@pytest.mark.parametrize("top_k", ["0", "00", "-1", "+1", "five", "1.5", "", "٣", "1 "])
def test_wrong_top_k_is_422(client: TestClient, top_k: str) -> None:
    status, code, message = error_of(post_files(client, ("a.png", b""), top_k=top_k))

    assert (status, code) == (422, "invalid_parameter")
    assert message.startswith("top_k: ")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Model=tiny-rgb", "Model"),
        ("model_name=tiny-rgb&top_k=1", "model_name"),
        ("version=7", "version"),
        ("topk=1", "topk"),
        ("model=tiny-rgb&top-k=1", "top-k"),
        ("=1", "''"),
        ("a%0Ab=1", r"a\nb"),
        ("model=tiny-rgb&model=tiny-grey", "model"),
        ("top_k=1&top_k=2", "top_k"),
        ("model=", "model"),
        ("model", "model"),
        (f"model={'a' * 201}", "model"),
        ("&".join(f"name{number}=1" for number in range(1000)), "name0"),
        ("a" * 5000, "aaa"),
    ],
)
def test_unknown_repeated_or_empty_query_parameter_is_422_and_named(
    client: TestClient, pixels: np.ndarray, query: str, named: str
) -> None:
    headers = {"Content-Type": "image/png"}

    status, code, message = error_of(client.post(f"/classify?{query}", content=as_png(pixels[0]), headers=headers))

    assert (status, code) == (422, "invalid_parameter")
    assert named in message
    assert len(message) < 400


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_the_error_of_their_image_alone(
    client: TestClient, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    predict_proba = Predictor.predict_proba

    def broken(predictor: Predictor, images: np.ndarray) -> np.ndarray:
        probabilities = predict_proba(predictor, images)
        probabilities[(images == pixels[1]).all(axis=(1, 2, 3)), 3] = value
        return probabilities

    monkeypatch.setattr(Predictor, "predict_proba", broken)
    mixed = post_files(client, ("good.png", as_png(pixels[0])), ("bad.png", as_png(pixels[1])))
    alone = post_files(client, ("bad.png", as_png(pixels[1])))

    good, bad = mixed.json()["results"]
    assert mixed.status_code == 200
    assert "label" in good
    assert bad["error"]["code"] == "inference_failed"
    assert error_of(alone)[:2] == (500, "inference_failed")


@pytest.mark.parametrize("image", [b"0" * MAX_BODY_BYTES, b"0" * (MAX_BODY_BYTES + 1)])
def test_form_larger_than_the_limit_is_413(client: TestClient, image: bytes) -> None:
    status, code, message = error_of(post_files(client, ("a.png", image)))

    assert (status, code) == (413, "body_too_large")
    assert str(MAX_BODY_BYTES) in message


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 422), (MAX_BODY_BYTES + 1, 413)])
def test_body_of_exactly_the_limit_is_accepted(client: TestClient, size: int, status: int) -> None:
    def chunks() -> Iterator[bytes]:  # no Content-Length
        yield from (b"0" * min(1000, size - start) for start in range(0, size, 1000))

    headers = {"Content-Type": "image/png"}

    assert client.post("/classify", content=b"0" * size, headers=headers).status_code == status
    assert client.post("/classify", content=chunks(), headers=headers).status_code == status


def test_more_images_than_the_limit_are_413(client: TestClient) -> None:
    status, code, message = error_of(post_files(client, *([("a.png", b"")] * (MAX_IMAGES + 1))))

    assert (status, code) == (413, "too_many_images")
    assert str(MAX_IMAGES) in message


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"--b--\r\n", "multipart/form-data; boundary=b", "no_images"),
        (b"", "multipart/form-data; boundary=b", "invalid_form"),
        (b"garbage", "multipart/form-data; boundary=b", "invalid_form"),
        (b"--b--\r\n", "multipart/form-data", "invalid_form"),
        (
            b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n3\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "invalid_form",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut',
            "multipart/form-data; boundary=b",
            "invalid_form",
        ),
    ],
    ids=["no parts", "empty", "garbage", "no boundary", "a field", "cut off"],
)
def test_malformed_form_or_form_without_images_is_400(
    client: TestClient, body: bytes, content_type: str, code: str
) -> None:
    response = client.post("/classify", content=body, headers={"Content-Type": content_type})

    assert error_of(response)[:2] == (400, code)


def test_file_name_too_long_is_400_in_every_kind_of_body(client: TestClient) -> None:
    longest, plain, other = "a" * 1024, "a" * 1025, "ä" * 1025

    assert error_of(post_files(client, (longest, b"no image")))[:2] == (422, "invalid_image")
    assert error_of(post_files(client, (plain, b"no image")))[:2] == (400, "invalid_form")
    assert error_of(post_files(client, (other, b"no image")))[:2] == (400, "invalid_form")
    in_json = client.post("/classify", json={"images": [{"content": "", "filename": plain}]})
    assert error_of(in_json)[:2] == (400, "invalid_json")


def test_fault_of_the_server_is_500_without_details(
    client: TestClient, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Predictor, "rank", fail)

    response = post_files(client, ("a.png", as_png(pixels[0])))

    assert error_of(response)[:2] == (500, "internal_error")
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_images_are_decoded_off_the_event_loop_by_a_bounded_pool(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    decode = CheapImages.decode_one

    def recording(self: CheapImages, *args: Any) -> Any:
        threads.add(threading.current_thread().name)
        return decode(self, *args)

    monkeypatch.setattr(CheapImages, "decode_one", recording)

    with ThreadPoolExecutor(8) as pool:
        image = as_png(np.random.default_rng(0).integers(0, 256, (80, 80, 1), np.uint8))  # not a tiny one
        statuses = [r.status_code for r in pool.map(lambda _: post_files(client, ("a.png", image)), range(24))]

    assert statuses == [200] * 24
    assert threads <= {"classify_0", "classify_1"}


def test_labels_are_sent_as_utf_8() -> None:
    assert to_json({"label": "Käfer", "score": 0.5}) == '{"label":"Käfer","score":0.5}'.encode()
