"""Served models: sources, versions, and changes while the server runs."""

import errno
import gc
import gzip
import json
import logging
import re
import shutil
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pdeinfer import ModelNotFoundError, ModelPackageError, Predictor
from pdeinfer.package import zoo
from serving.app import create_app
from serving.engine.served_model import ServedModel
from serving.engine.sources import find_packages, split_name
from serving.http.body import MAX_SMALL_BYTES
from serving.settings import Settings
from tests.images.image_makers import as_png
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}
KEY = {"Authorization": "Bearer admin"}


@pytest.fixture
def repository(package_folder: Path, rgb_package_folder: Path, tmp_path: Path) -> Path:
    """A folder with tiny-grey in versions 2 and 10, tiny-rgb without a version, and unrelated entries."""
    folder = tmp_path / "models"
    for version in ("2", "10"):
        shutil.copytree(package_folder, folder / "tiny-grey" / version)
    shutil.copytree(rgb_package_folder, folder / "tiny-rgb")
    (folder / "tiny-grey" / "notes").mkdir()
    (folder / "empty").mkdir()
    (folder / "README").write_text("what is here")
    return folder


@pytest.fixture
def admin(repository: Path) -> Iterator[TestClient]:
    settings = Settings(models=(str(repository),), device="cpu", threads=1, admin_keys="admin")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def served(client: TestClient) -> list[tuple[str, str]]:
    return [(model["name"], model["version"]) for model in client.get("/models").json()["models"]]


def change(client: TestClient, name: str, action: str) -> Any:
    return client.post(f"/admin/models/{name}", json={"action": action}, headers=KEY)


def found(source: Path) -> list[tuple[str, str]]:
    return [(zoo.load(location).card.preset.name, version) for version, location in find_packages(str(source))]


def test_a_model_is_served_in_the_chosen_precision() -> None:
    settings = Settings(models=("cifar10-global",), device="cpu", threads=1, precision="int8")
    image = as_png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    with TestClient(create_app(settings)) as client, Predictor("cifar10-global", precision="int8") as predictor:
        (model,) = client.get("/models").json()["models"]
        (result,) = client.post("/classify", content=image, headers=PNG).json()["results"]
        expected = predictor.predict(image)
        with Predictor("cifar10-global") as other:
            assert other.predict(image).score != expected.score

    assert model["precision"] == "int8"
    assert (result["label"], result["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-6))


def test_a_precision_that_a_package_lacks_fails_the_start() -> None:
    settings = Settings(models=("digits-pde",), device="cpu", threads=1, precision="int8")
    with (
        pytest.raises(ModelPackageError, match="digits-pde has no int8 file"),
        TestClient(create_app(settings)),
    ):
        pass


def test_sources_are_packages_folders_of_versions_and_folders_of_both(repository: Path) -> None:
    assert found(repository / "tiny-rgb") == [("tiny-rgb", "1")]
    assert found(repository / "tiny-grey") == [("tiny-grey", "2"), ("tiny-grey", "10")]
    assert found(repository) == [("tiny-grey", "2"), ("tiny-grey", "10"), ("tiny-rgb", "1")]


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_a_source_without_packages_is_named_in_the_error(repository: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=name):
        found(repository / name)


def test_an_unreadable_source_is_named_in_the_error() -> None:
    with pytest.raises(ModelNotFoundError, match=r"aaa/card.json cannot be read: File name too long"):
        found(Path("a" * 300))


def hide(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder of mode 700 that is another user's; root, who may run this test, could still read it."""
    path.mkdir(exist_ok=True)
    is_file, iterdir = Path.is_file, Path.iterdir

    def check(opened: Path) -> None:
        if path in (opened, *opened.parents):
            raise PermissionError(errno.EACCES, "Permission denied", str(opened))

    monkeypatch.setattr(Path, "is_file", lambda opened: check(opened.parent) or is_file(opened))
    monkeypatch.setattr(Path, "iterdir", lambda opened: check(opened) or iterdir(opened))


@pytest.mark.parametrize("name", ["lost+found", "2026"])
def test_an_unreadable_folder_beside_packages_is_skipped_with_a_warning(
    repository: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide(repository / name, monkeypatch)
    settings = Settings(models=(str(repository),), device="cpu", threads=1, admin_keys="admin")
    with TestClient(create_app(settings)) as client:
        assert served(client) == [("tiny-grey", "10"), ("tiny-grey", "2"), ("tiny-rgb", "1")]
        assert f"{repository / name} cannot be read: Permission denied" in caplog.text
        assert change(client, "tiny-grey", "reload").json()["versions"] == ["2", "10"]


def test_an_unreadable_folder_is_in_the_error_if_there_is_no_package(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(repository / "empty" / "lost+found", monkeypatch)
    with pytest.raises(ModelNotFoundError, match=r"no model package.*lost\+found cannot be read: Permission denied"):
        found(repository / "empty")


def test_an_unreadable_package_that_is_named_is_an_error(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(repository / "tiny-rgb", monkeypatch)
    with pytest.raises(ModelNotFoundError, match=r"tiny-rgb.* cannot be read: Permission denied"):
        found(repository / "tiny-rgb")


def test_an_unreadable_version_is_not_skipped(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(repository / "tiny-grey" / "11", monkeypatch)
    with pytest.raises(ModelPackageError, match=r"tiny-grey/11 is not a model package"):
        TestClient(create_app(Settings(models=(str(repository),), device="cpu", threads=1))).__enter__()


def test_a_named_source_is_served_under_its_name(
    repository: Path, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray
) -> None:
    monkeypatch.chdir(repository.parent)
    models = ("photos=models/tiny-grey", "other.v2=digits-pde", "models/tiny-rgb")
    limits = {"photos": {"threshold": 1}}
    with TestClient(create_app(Settings(models=models, device="cpu", threads=1, per_model=limits))) as client:
        answer = client.post("/classify", content=as_png(pixels[0]), headers=PNG).json()
        listed = served(client)
        inferred = client.get("/v2/models/photos/versions/2").json()["name"]

    assert listed == [("photos", "10"), ("photos", "2"), ("other.v2", "1"), ("tiny-rgb", "1")]
    assert (answer["model"], answer["results"][0]["label"]) == ("photos", None)
    assert inferred == "photos"


def test_one_package_is_served_under_two_names(package_folder: Path) -> None:
    models = (f"a={package_folder}", f"b={package_folder}")
    with TestClient(create_app(Settings(models=models, device="cpu", threads=1))) as client:
        assert served(client) == [("a", "1"), ("b", "1")]


def test_two_packages_under_one_name_fail_the_start(package_folder: Path, rgb_package_folder: Path) -> None:
    models = (f"a={package_folder}", f"a={rgb_package_folder}")
    with (
        pytest.raises(ModelPackageError, match=f"'a' and version 1.*{package_folder}.*{rgb_package_folder}"),
        TestClient(create_app(Settings(models=models, device="cpu", threads=1))),
    ):
        pass


def test_a_named_model_is_reloaded_from_its_source(package_folder: Path) -> None:
    settings = Settings(models=(f"photos={package_folder}",), device="cpu", threads=1, admin_keys="admin")
    with TestClient(create_app(settings)) as client:
        assert change(client, "photos", "reload").json() == {"name": "photos", "versions": ["1"]}
        assert change(client, "tiny-grey", "load").status_code == 404


@pytest.mark.parametrize(
    ("source", "name", "place"),
    [
        ("photos=build/a=b", "photos", "build/a=b"),
        ("runs/lr=0.1", None, "runs/lr=0.1"),
        ("=build", None, "=build"),
        ("photos=", None, "photos="),
        ("-x=build", None, "-x=build"),
        ("a b=build", None, "a b=build"),
    ],
)
def test_only_a_valid_name_before_the_equals_sign_names_a_model(source: str, name: str | None, place: str) -> None:
    assert split_name(source) == (name, place)


@pytest.mark.parametrize("source", ["a b=build", "=build", "photos=", "runs/lr=0.1"])
def test_the_error_for_a_wrong_name_gives_the_rule_for_names(source: str) -> None:
    with pytest.raises(ModelNotFoundError, match="NAME has 1 to 100 letters"):
        list(find_packages(source))


def test_a_folder_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()

    assert split_name("lr=0.1") == (None, "lr=0.1")


def test_the_highest_version_answers_and_every_version_is_listed(admin: TestClient, pixels: np.ndarray) -> None:
    response = admin.post("/classify", content=as_png(pixels[0]), headers=PNG)

    assert (response.json()["model"], response.json()["version"]) == ("tiny-grey", "10")
    assert served(admin) == [("tiny-grey", "10"), ("tiny-grey", "2"), ("tiny-rgb", "1")]
    assert admin.get("/v2/models/tiny-grey/versions/2").json()["versions"] == ["2", "10"]


def test_admin_is_404_without_admin_keys(client: TestClient) -> None:
    assert client.post("/admin/models/tiny-grey", json={"action": "unload"}, headers=KEY).status_code == 404


def test_a_client_key_does_not_open_admin(repository: Path) -> None:
    settings = Settings(models=(str(repository),), device="cpu", threads=1, api_keys="client", admin_keys="admin")
    with TestClient(create_app(settings)) as client:
        response = client.post(
            "/admin/models/tiny-rgb", json={"action": "unload"}, headers={"Authorization": "Bearer client"}
        )
        assert response.status_code == 401
        assert client.get("/models", headers=KEY).status_code == 200


def gauges(client: TestClient, version: str) -> dict[str, float]:
    """Return the gauges of a version of tiny-grey by name."""
    line = rf'^pdeinfer_(\w+){{[^}}]*model="tiny-grey",[^}}]*version="{version}"}} (\S+)$'
    found = re.findall(line, client.get("/metrics").text, re.MULTILINE)
    return {
        name: float(value) for name, value in found if name in ("model_info", "admitted_images", "max_queue_images")
    }


def test_models_are_unloaded_and_loaded_again(admin: TestClient, pixels: np.ndarray) -> None:
    unloaded = change(admin, "tiny-grey", "unload")
    assert unloaded.json() == {"name": "tiny-grey", "versions": []}
    assert served(admin) == [("tiny-rgb", "1")]
    assert admin.post("/classify?model=tiny-grey", content=as_png(pixels[0]), headers=PNG).status_code == 404
    assert admin.post("/classify", content=as_png(pixels[0]), headers=PNG).json()["model"] == "tiny-rgb"
    assert gauges(admin, "10") == {}

    loaded = change(admin, "tiny-grey", "load")
    assert gauges(admin, "10") == {"model_info": 1, "admitted_images": 0, "max_queue_images": 256}
    assert loaded.json() == {"name": "tiny-grey", "versions": ["2", "10"]}
    # It is the default model again.
    assert admin.post("/classify", content=as_png(pixels[0]), headers=PNG).json()["model"] == "tiny-grey"
    assert admin.post("/classify?model=tiny-grey", content=as_png(pixels[0]), headers=PNG).status_code == 200


def test_the_first_models_can_be_freed_after_a_change(admin: TestClient) -> None:
    gc.freeze()  # as a worker does
    assert change(admin, "tiny-grey", "reload").status_code == 200
    assert gc.get_freeze_count() == 0


def test_a_reload_serves_the_current_versions(admin: TestClient, repository: Path) -> None:
    (repository / "tiny-grey" / "2").rename(repository / "tiny-grey" / "11")

    assert change(admin, "tiny-grey", "reload").json()["versions"] == ["10", "11"]
    assert served(admin)[:2] == [("tiny-grey", "11"), ("tiny-grey", "10")]


def test_only_served_versions_have_gauges_and_a_reloaded_one_counts_on(admin: TestClient, repository: Path) -> None:
    (repository / "tiny-grey" / "2").rename(repository / "tiny-grey" / "11")
    assert gauges(admin, "2").keys() == {"model_info", "admitted_images", "max_queue_images"}

    assert change(admin, "tiny-grey", "reload").status_code == 200
    reloaded = admin.app.state.models.get("tiny-grey", "10").metrics  # type: ignore[attr-defined]
    reloaded.admitted_images.inc()
    counted = gauges(admin, "10")
    reloaded.admitted_images.dec()

    assert counted == {"model_info": 1, "admitted_images": 1, "max_queue_images": 256}
    assert gauges(admin, "2") == {}
    assert gauges(admin, "11") == {"model_info": 1, "admitted_images": 0, "max_queue_images": 256}


def test_a_server_without_models_is_not_ready(admin: TestClient) -> None:
    for name in ("tiny-grey", "tiny-rgb"):
        assert change(admin, name, "unload").status_code == 200

    assert admin.get("/readyz").status_code == 503
    assert admin.post("/classify", content=b"", headers=PNG).json()["error"]["code"] == "not_ready"
    assert admin.get("/models").json() == {"default": None, "models": []}


@pytest.mark.parametrize("damage", ["corrupted", "removed", "card"])
def test_reloading_a_damaged_package_leaves_the_served_model(
    admin: TestClient, repository: Path, pixels: np.ndarray, damage: str
) -> None:
    package = repository / "tiny-grey" / "10"
    if damage == "corrupted":
        content = bytearray((package / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (package / "model.onnx").write_bytes(content)
    elif damage == "removed":
        (package / "model.onnx").unlink()
    else:
        (package / "card.json").write_text("{")

    response = change(admin, "tiny-grey", "reload")

    assert response.status_code == 422
    assert response.json()["error"]["code"] == "model_load_failed"
    assert str(repository) not in response.text
    assert served(admin)[0] == ("tiny-grey", "10")
    assert admin.post("/classify", content=as_png(pixels[0]), headers=PNG).status_code == 200


def test_the_error_of_a_model_that_cannot_be_loaded_says_whether_it_is_served(
    admin: TestClient, repository: Path
) -> None:
    (repository / "tiny-rgb" / "card.json").write_text("{")
    answers = {action: change(admin, "tiny-rgb", action).json() for action in ("reload", "unload", "load")}

    assert "is served as before" in answers["reload"]["error"]["message"]
    assert "is not served" in answers["load"]["error"]["message"]


def test_a_damaged_package_of_another_model_does_not_matter(
    admin: TestClient, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = repository / "tiny-rgb" / "card.json"
    card.write_text("{")

    assert change(admin, "tiny-grey", "reload").json()["versions"] == ["2", "10"]
    assert str(card) in caplog.text
    assert change(admin, "tiny-rgb", "reload").status_code == 422
    assert served(admin) == [("tiny-grey", "10"), ("tiny-grey", "2"), ("tiny-rgb", "1")]
    settings = Settings(models=(str(repository),), device="cpu", threads=1)
    with TestClient(create_app(settings, {"tiny-grey": None})) as replacement:
        assert served(replacement) == [("tiny-grey", "10"), ("tiny-grey", "2")]
    with pytest.raises(ModelPackageError, match="damaged"), TestClient(create_app(settings, None)):
        pass


def test_a_missing_source_of_another_model_does_not_matter(repository: Path, tmp_path: Path) -> None:
    sources = (f"a={repository / 'tiny-grey'}", f"b={repository / 'tiny-rgb'}", str(repository / "empty"))
    shutil.copytree(repository / "tiny-rgb", repository / "empty" / "c")
    settings = Settings(models=sources, device="cpu", threads=1, admin_keys="admin")
    with TestClient(create_app(settings)) as client:
        assert change(client, "tiny-rgb", "unload").status_code == 200
        assert change(client, "b", "unload").status_code == 200
        (repository / "tiny-rgb").rename(tmp_path / "elsewhere")
        shutil.rmtree(repository / "empty" / "c")

        assert change(client, "a", "reload").json()["versions"] == ["2", "10"]
        assert change(client, "b", "load").status_code == 422
        assert served(client) == [("a", "10"), ("a", "2")]
    for expected in ({"a": None}, {}):
        with TestClient(create_app(settings, expected)) as replacement:
            assert {name for name, _ in served(replacement)} == set(expected)
    with pytest.raises(ModelNotFoundError, match="tiny-rgb"), TestClient(create_app(settings, {"a": None, "b": None})):
        pass


def test_two_packages_under_the_name_of_another_model_do_not_matter(admin: TestClient, repository: Path) -> None:
    shutil.copytree(repository / "tiny-rgb", repository / "backup")

    assert change(admin, "tiny-grey", "reload").json()["versions"] == ["2", "10"]
    assert change(admin, "tiny-rgb", "reload").status_code == 422


def test_a_reload_beside_a_damaged_package_keeps_the_order(admin: TestClient, repository: Path) -> None:
    for version in ("2", "10"):
        (repository / "tiny-grey" / version / "card.json").write_text("{")

    assert change(admin, "tiny-rgb", "reload").json()["versions"] == ["1"]
    assert served(admin) == [("tiny-grey", "10"), ("tiny-grey", "2"), ("tiny-rgb", "1")]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"[]", 422, "invalid_parameter"),
        (b"{}", 422, "invalid_parameter"),
        (iter([b" " * 20_000]), 413, "body_too_large"),
        (b"{" + b" " * MAX_SMALL_BYTES, 413, "body_too_large"),
    ],
    ids=["cut off", "no text", "no object", "no action", "too large", "too large for a change"],
)
def test_an_unreadable_change_is_an_error_with_its_code(repository: Path, body: object, status: int, code: str) -> None:
    settings = Settings(models=(str(repository),), device="cpu", threads=1, admin_keys="admin", max_body_bytes=10_000)
    with TestClient(create_app(settings)) as client:
        response = client.post("/admin/models/tiny-grey", content=body, headers=KEY)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_change_may_begin_with_a_byte_order_mark(admin: TestClient) -> None:
    body = '{"action": "reload"}'.encode("utf-8-sig")

    assert admin.post("/admin/models/tiny-rgb", content=body, headers=KEY).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b'{"action": "reload"}'), 200),
        ("deflate", zlib.compress(b'{"action": "reload"}'), 200),
        ("gzip", gzip.compress(b" " * (MAX_SMALL_BYTES + 1)), 413),
        ("gzip", b'{"action": "reload"}', 400),
        ("br", b'{"action": "reload"}', 415),
    ],
    ids=["gzip", "deflate", "too large", "damaged", "unknown"],
)
def test_a_change_may_be_compressed(admin: TestClient, encoding: str, body: bytes, status: int) -> None:
    response = admin.post("/admin/models/tiny-rgb", content=body, headers={**KEY, "Content-Encoding": encoding})

    assert response.status_code == status


def test_openapi_document_lists_the_answers_to_a_change(admin: TestClient) -> None:
    responses = admin.get("/openapi.json").json()["paths"]["/admin/models/{name}"]["post"]["responses"]

    assert responses.keys() >= {"200", "400", "401", "404", "408", "413", "415", "422", "500", "503"}


@pytest.mark.parametrize(
    ("name", "action", "status", "code"),
    [
        ("other", "load", 404, "model_not_found"),
        ("other", "reload", 404, "model_not_found"),
        ("other", "unload", 404, "model_not_found"),
        ("tiny-grey", "delete", 422, "invalid_parameter"),
        ("..", "load", 404, "not_found"),
    ],
)
def test_an_impossible_change_is_an_error_with_its_code(
    admin: TestClient, name: str, action: str, status: int, code: str
) -> None:
    response = change(admin, name, action)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_no_request_is_lost_while_models_are_reloaded(admin: TestClient, pixels: np.ndarray) -> None:
    image = as_png(pixels[0])
    with ThreadPoolExecutor(4) as pool:
        requests = [pool.submit(admin.post, "/classify", content=image, headers=PNG) for _ in range(200)]
        changes = [change(admin, "tiny-grey", "reload").status_code for _ in range(10)]
        statuses = {request.result().status_code for request in requests}

    assert statuses == {200}
    assert changes == [200] * 10


def test_a_change_cannot_name_a_path(admin: TestClient, tmp_path: Path) -> None:
    body = json.dumps({"action": "load", "path": str(tmp_path)})
    response = admin.post("/admin/models/other", content=body, headers={**KEY, "Content-Type": "application/json"})

    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_parameter")


def served_models() -> list[ServedModel]:
    return [value for value in gc.get_objects() if isinstance(value, ServedModel)]


def assert_count(expected: int) -> None:
    """Assert how many models there are once the threads that loaded some have ended."""
    wait_until(lambda: len(served_models()) == expected)


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collection")
def test_a_replaced_model_is_freed_without_the_garbage_collector(admin: TestClient, pixels: np.ndarray) -> None:
    before = len(served_models())
    for _ in range(3):
        model = admin.app.state.models.get("tiny-grey")  # type: ignore[attr-defined]
        replaced = [weakref.ref(part) for part in (model, model.predictor, model.predictor._session)]
        del model
        for image in (as_png(pixels[0]), b"garbage"):
            admin.post("/classify?model=tiny-grey", content=image, headers=PNG)
        data = {"name": "image", "datatype": "UINT8", "shape": [4, 8, 8, 1], "data": pixels.ravel().tolist()}
        assert admin.post("/v2/models/tiny-grey/infer", json={"inputs": [data]}).status_code == 200
        assert change(admin, "tiny-grey", "reload").status_code == 200

        assert [part() for part in replaced] == [None, None, None]
    assert_count(before)


@pytest.mark.usefixtures("no_garbage_collection")
def test_a_refused_change_leaves_no_model_behind(
    admin: TestClient, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("serving.engine.models"), "disabled", True)  # pytest would keep the errors
    before = len(served_models())
    model = repository / "tiny-grey" / "10" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    for _ in range(3):
        assert change(admin, "tiny-grey", "reload").status_code == 422  # version 2 was loaded already
    assert_count(before)
