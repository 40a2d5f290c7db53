"""POST /inspect: fields, levels and answer of the PDE layers, as they are and changed."""

import base64
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from pdeinfer import Predictor
from pdeinfer.inspection.inspector import Inspector
from pdeinfer.package import zoo
from serving.app import create_app
from serving.engine import inspection
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.serving.brake import Brake
from tests.waiting import wait_until

DIGIT = np.random.default_rng(3).integers(0, 256, (8, 8, 1), dtype=np.uint8)
PHOTO = np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def client(package_folder: Path) -> Iterator[TestClient]:
    """A client of the bundled models, and of "tiny-grey", whose package has no fields.onnx."""
    models = ("digits-pde", "cifar10-global", "cifar10-resnet32", str(package_folder))
    with TestClient(create_app(Settings(models=models, device="cpu", threads=2))) as client:
        yield client


@pytest.fixture
def post(client: TestClient) -> Callable[..., Response]:
    def post(image: np.ndarray = DIGIT, **params: Any) -> Response:
        return client.post("/inspect", params=params, content=as_png(image), headers={"Content-Type": "image/png"})

    return post


def decoded(array: dict[str, Any]) -> np.ndarray:
    dtype = {"uint8": "<u1", "float32": "<f4"}[array["dtype"]]
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"])


def error_of(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_the_arrays_are_those_of_inspect(post: Callable[..., Response]) -> None:
    body = post(PHOTO, model="cifar10-global").json()
    inspected = Inspector(zoo.load("cifar10-global"), threads=1).inspect(PHOTO)
    assert np.array_equal(decoded(body["pixels"]), PHOTO)
    assert [layer["name"] for layer in body["layers"]] == ["layer1", "layer2", "layer3"]
    for found, layer in zip(body["layers"], inspected.layers, strict=True):
        u, v = layer.velocity
        dx, dy = layer.diffusivity
        for name, field in (("u", u), ("v", v), ("Dx", dx), ("Dy", dy)):
            assert np.allclose(decoded(found["fields"][name]), field, atol=1e-5)
        assert np.allclose(decoded(found["levels"]), layer.levels, atol=1e-5)
        assert np.array_equal(decoded(found["stable"]), layer.stable)
        assert found["shape"] == list(layer.levels.shape[1:])
        assert found["unstable"] == pytest.approx(1 - layer.stable.mean())
        courant, diffusion = (sum(map(np.abs, pair)) for pair in (layer.courant_numbers, layer.diffusion_numbers))
        for extent, numbers in ((found["courant"], courant), (found["diffusion"], diffusion)):
            assert extent == {"maximum": pytest.approx(numbers.max()), "mean": pytest.approx(numbers.mean())}


def test_the_answer_is_that_of_classify(post: Callable[..., Response], client: TestClient) -> None:
    for name, image in (("digits-pde", DIGIT), ("cifar10-resnet32", PHOTO)):
        body = post(image, model=name).json()
        response = client.post(
            "/classify", params={"model": name, "top_k": 10}, files={"file": ("a.png", as_png(image))}
        )
        assert body["model"] == name
        for found, expected in zip(body["top"], response.json()["results"][0]["top"], strict=True):
            assert (found["label"], found["index"]) == (expected["label"], expected["index"])
            assert found["score"] == pytest.approx(expected["score"], abs=1e-6)


def test_changed_values_change_levels_and_answer(post: Callable[..., Response]) -> None:
    inspector = Inspector(zoo.load("digits-pde"), threads=1)
    spec = replace(inspector.spec, dt=0.05, num_steps=7, velocity=None)
    expected = inspector.inspect(DIGIT, spec)
    body = post(dt=0.05, num_steps=7, advection="false").json()
    assert np.allclose(decoded(body["layers"][0]["levels"]), expected.layers[0].levels, atol=1e-5)
    assert body["layers"][0]["fields"]["u"] is None
    scores = {entry["index"]: entry["score"] for entry in body["top"]}
    assert [scores[index] for index in range(10)] == pytest.approx(list(expected.probabilities), abs=1e-5)
    unchanged = {"diffusion": True, "source": True}
    assert body["values"] == {"dt": 0.05, "num_steps": 7, "advection": False, **unchanged}
    assert body["trained_values"] == {"dt": 0.2, "num_steps": 5, "advection": True, **unchanged}
    assert body["top"] != post().json()["top"]


@pytest.mark.parametrize("text", ["1e-1", "0.1", ".1", "1.e-1", "0.1e+0", "0.10000000000000000555"])
def test_dt_is_read_as_programs_write_numbers(text: str, post: Callable[..., Response]) -> None:
    assert post(dt=text).json()["values"]["dt"] == 0.1


def test_the_trained_values_give_the_answer_of_the_model(post: Callable[..., Response]) -> None:
    assert post(dt=0.2, num_steps=5, advection="true", diffusion="true").json()["top"] == post().json()["top"]


def test_layer_chooses_the_arrays(post: Callable[..., Response]) -> None:
    layers = post(PHOTO, model="cifar10-global", layer=2).json()["layers"]
    for key in ("fields", "levels", "stable"):
        assert [layer[key] is None for layer in layers] == [True, False, True]
    assert [layer["shape"] for layer in layers] == [[32, 32, 16], [16, 16, 32], [8, 8, 64]]
    assert [layer["levels"] for layer in post(PHOTO, model="cifar10-global", layer=0).json()["layers"]] == [None] * 3


def test_values_without_bound_have_no_answer(post: Callable[..., Response]) -> None:
    response = post(255 - PHOTO, model="cifar10-global", num_steps=20, dt=2, diffusion="false")
    assert response.status_code == 200
    assert response.json()["top"] is None


@pytest.mark.parametrize(("name", "image"), [("cifar10-resnet32", PHOTO), ("tiny-grey", DIGIT)])
def test_a_model_without_fields_has_an_answer_and_no_layers(
    name: str, image: np.ndarray, post: Callable[..., Response]
) -> None:
    body = post(image, model=name).json()
    assert (body["layers"], body["can_change"], len(body["top"])) == ([], False, 10)
    assert np.array_equal(decoded(body["pixels"]), image)
    assert post(image, model=name, layer=1).json()["layers"] == []
    assert error_of(post(image, model=name, dt=0.1)) == (422, "not_inspectable")


def test_arrays_beyond_the_limit_are_left_out_and_changes_refused(
    post: Callable[..., Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MAX_BYTES", 8 * 8 * 8 * 4 * 10)  # u, v, Dx, Dy and six levels
    assert len(post().json()["layers"]) == 1
    assert error_of(post(num_steps=6)) == (422, "not_inspectable")
    monkeypatch.setattr(inspection, "MAX_BYTES", 8 * 8 * 8 * 4 * 9)
    assert (post().json()["layers"], len(post().json()["top"])) == ([], 10)


def test_an_answer_counts_as_held_bytes() -> None:
    settings = Settings(models=("digits-pde",), device="cpu", max_body_bytes=20_000, max_total_bytes=20_000)
    with TestClient(create_app(settings)) as client:
        for layer, expected in ((0, 200), (1, 503)):
            response = client.post("/inspect", params={"layer": layer}, files={"file": as_png(DIGIT)})
            assert response.status_code == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dt", "0"),
        ("dt", "2.1"),
        ("dt", "nan"),
        ("dt", "-1"),
        ("dt", "1e1"),
        ("dt", "e-1"),
        ("dt", "."),
        ("dt", "+1"),
        ("num_steps", "1e1"),
        ("num_steps", "0"),
        ("num_steps", "21"),
        ("num_steps", "1.5"),
        ("num_steps", "٣"),
        ("layer", "-1"),
        ("layer", "2"),
        ("advection", "no"),
        ("diffusion", ""),
        ("top_k", "1"),
        ("model", ""),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, value: str, post: Callable[..., Response]) -> None:
    assert error_of(post(**{name: value})) == (422, "invalid_parameter")


def test_anything_but_one_image_is_refused(client: TestClient, post: Callable[..., Response]) -> None:
    file = ("file", ("a.png", as_png(DIGIT)))
    assert error_of(client.post("/inspect", files=[file, file])) == (413, "too_many_images")
    assert error_of(client.post("/inspect", json={"images": []})) == (400, "no_images")
    assert error_of(client.post("/inspect", content=b"text", headers={"Content-Type": "text/plain"})) == (
        415,
        "unsupported_media_type",
    )
    assert error_of(client.post("/inspect", files={"file": ("a.png", b"no image")})) == (422, "invalid_image")
    assert error_of(post(model="missing")) == (404, "model_not_found")
    assert client.get("/inspect").status_code == 405


def test_a_deadline_is_kept() -> None:
    with TestClient(create_app(Settings(models=("digits-pde",), device="cpu", request_timeout=1e-6))) as client:
        assert error_of(client.post("/inspect", files={"file": as_png(DIGIT)})) == (504, "deadline_exceeded")


def test_a_full_queue_refuses(brake: Brake) -> None:
    settings = Settings(models=("digits-pde",), device="cpu", max_images=1, max_queue=1)
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(1) as pool:
        brake.on()
        admitted = pool.submit(client.post, "/classify", files={"file": as_png(DIGIT)})
        wait_until(lambda: client.app.state.models.get("digits-pde").is_full)  # type: ignore[attr-defined]

        refused = client.post("/inspect", files={"file": as_png(DIGIT)})
        brake.released.set()

        assert error_of(refused) == (503, "overloaded")
        assert admitted.result().status_code == 200


def test_a_key_is_needed_where_keys_are_set(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("the-key")
    settings = Settings(models=("digits-pde",), device="cpu", api_keys_file=tmp_path / "keys")
    with TestClient(create_app(settings)) as client:
        files = {"file": as_png(DIGIT)}
        assert client.post("/inspect", files=files).status_code == 401
        assert client.post("/inspect", files=files, headers={"X-API-Key": "the-key"}).status_code == 200


def test_a_model_with_a_damaged_fields_file_is_served_without_layers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "digits-pde"))
    (folder / "fields.onnx").write_bytes(b"damaged")
    with TestClient(create_app(Settings(models=(str(folder),), device="cpu"))) as client:
        body = client.post("/inspect", files={"file": as_png(DIGIT)}).json()
    assert (body["layers"], len(body["top"])) == ([], 10)


def test_a_package_that_is_removed_after_loading_is_inspected(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "digits-pde"))
    with TestClient(create_app(Settings(models=(str(folder),), device="cpu"))) as client:
        shutil.rmtree(folder)
        assert len(client.post("/inspect", files={"file": as_png(DIGIT)}).json()["layers"]) == 1


def test_an_answer_of_the_unchanged_network_that_is_not_finite_is_an_error(
    post: Callable[..., Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "predict_proba", lambda *_: np.full((1, 10), np.nan, np.float32))
    assert error_of(post(model="digits-pde", layer=0)) == (500, "inference_failed")
