"""All routes but /classify: models, probes, routing errors, HEAD, the OpenAPI document and its page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pdeinfer import ModelNotFoundError, ModelPackageError
from serving.app import create_app
from serving.settings import Settings
from tests.conftest import GREY_PRESET


def test_models_route_describes_the_served_models(client: TestClient) -> None:
    body = client.get("/models").json()

    assert body["default"] == "tiny-grey"
    assert [model["name"] for model in body["models"]] == ["tiny-grey", "tiny-rgb"]
    assert body["models"][0] == {
        "name": "tiny-grey",
        "version": "1",
        "labels": list(GREY_PRESET.labels),
        "input": {"height": 8, "width": 8, "channels": 1, "fit": GREY_PRESET.input.fit},
        "parameters": 640,
        "macs": 640,
        "pde": {"dt": 0.2, "num_steps": 5, "advection": True, "diffusion": True, "source": True},
        "training": {"dataset": None, "epochs": None, "seed": None},
        "metrics": {"test_accuracy": 0.5},
        "precision": "float32",
        "device": "cpu",
        "provider": "CPUExecutionProvider",
        "pde_layers": "standard",
        "cuda_graphs": False,
    }


def test_server_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}


def test_stopping_server_is_alive_but_not_ready(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    app.state.models.draining = True
    try:
        response = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    finally:
        app.state.models.draining = False

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"


def test_failing_warm_up_stops_the_start(package_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("pdeinfer.Predictor.predict_proba", fail)

    with (
        pytest.raises(RuntimeError, match="out of memory"),
        TestClient(create_app(Settings(models=(str(package_folder),), device="cpu", threads=1))),
    ):
        pass


def test_bundled_models_are_served_by_default(
    package_folder: Path, rgb_package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdeinfer.package import zoo

    bundled = {"tiny-grey": package_folder, "tiny-rgb": rgb_package_folder}
    load = zoo.load
    monkeypatch.setattr(zoo, "names", lambda: tuple(bundled))
    monkeypatch.setattr(zoo, "load", lambda name: load(bundled[name]))

    with TestClient(create_app(Settings(device="cpu"))) as client:
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["tiny-grey", "tiny-rgb"]


def test_unknown_model_stops_the_start() -> None:
    with pytest.raises(ModelNotFoundError, match="'nope'"), TestClient(create_app(Settings(models=("nope",)))):
        pass


def test_settings_for_an_unserved_model_stop_the_start_unless_admins_may_load_it(package_folder: Path) -> None:
    values: dict[str, Any] = {"models": (str(package_folder),), "per_model": {"nope": {"max_delay_ms": 2}}}
    with pytest.raises(ModelNotFoundError, match=r"per_model.*'nope'"):  # noqa: SIM117
        with TestClient(create_app(Settings(**values))):
            pass
    with TestClient(create_app(Settings(**values, admin_keys="admin"))) as client:
        assert client.get("/readyz").status_code == 200


def test_two_models_of_one_name_stop_the_start(package_folder: Path) -> None:
    settings = Settings(models=(str(package_folder), str(package_folder)))

    with pytest.raises(ModelPackageError, match="'tiny-grey' and version 1"):  # noqa: SIM117
        with TestClient(create_app(settings)):
            pass


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/classify", 405, "method_not_allowed"),
        ("HEAD", "/classify", 405, None),
        ("HEAD", "/nowhere", 404, None),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("POST", "/docs/assets/swagger-ui.css", 405, "method_not_allowed"),
        ("GET", "/docs/assets/nowhere", 404, "not_found"),
        ("GET", "/docs/assets/%00", 404, "not_found"),
    ],
)
def test_routing_errors_have_the_one_shape(
    client: TestClient, method: str, path: str, status: int, code: str | None
) -> None:
    response = client.request(method, path)

    assert response.status_code == status
    assert (response.json()["error"]["code"] if response.content else None) == code


def test_head_is_answered_like_get_without_a_body(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = [path for path, operations in document["paths"].items() if "get" in operations]
    paths = [path.format(model="tiny-grey", version="1") for path in paths]
    assert len(paths) >= 12

    for path in (*paths, "/v2/", "/openapi.json", "/docs", "/docs/start.js", "/docs/assets/swagger-ui.css", "/nowhere"):
        get, head = client.get(path), client.head(path)
        assert head.status_code == get.status_code, path
        assert head.content == b""
        if path != "/metrics":  # it changes with every request
            assert head.headers["content-length"] == str(len(get.content)), path
        assert head.headers["content-type"] == get.headers["content-type"]


def test_head_is_counted_under_the_path_of_its_route(client: TestClient) -> None:
    line = 'pdeinfer_requests_total{route="/v2/models/{model}/ready",status="200"}'
    client.head("/v2/models/tiny-grey/ready")

    assert line in client.get("/metrics").text


def test_405_names_the_allowed_methods(client: TestClient) -> None:
    assert client.delete("/models").headers["allow"] == "GET, HEAD"
    assert client.get("/classify").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "/v2", "/v2/", "/v2/models/tiny-grey", "/v2/models/tiny-grey/ready"),
        *("/v2/models/tiny-grey/config", "/v2/models/tiny-grey/versions/1", "/v2/models/tiny-grey/versions/1/ready"),
    ],
)
def test_unknown_query_parameter_of_a_model_route_is_422_and_named(client: TestClient, path: str) -> None:
    response = client.get(f"{path}?version=7")

    assert response.status_code == 422
    assert "'version'" in response.text
    assert client.head(f"{path}?version=7").status_code == 422


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"]
)
def test_probes_metrics_and_documentation_ignore_query_parameters(client: TestClient, path: str) -> None:
    assert client.get(f"{path}?time=1").status_code == 200


def test_body_limit_covers_every_route(client: TestClient) -> None:
    response = client.request("GET", "/healthz", content=b"0", headers={"Content-Length": "1000000000"})

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert response.headers["connection"] == "close"


def operations(document: dict) -> Iterator[dict]:
    for path, methods in document["paths"].items():
        if not path.startswith("/v2"):  # whose errors have another shape
            yield from methods.values()


def test_openapi_document_describes_bodies_parameters_and_errors_with_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    classify = document["paths"]["/classify"]["post"]

    assert set(document["paths"]) >= {"/classify", "/models", "/metrics", "/healthz", "/readyz"}
    assert set(classify["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
        "image/*",
        "application/octet-stream",
    }
    assert "$defs" not in str(document)
    assert set(re.findall(r"#/components/schemas/(\w+)", str(document))) == set(document["components"]["schemas"])
    assert {parameter["name"] for parameter in classify["parameters"]} == {"model", "top_k"}
    assert set(classify["responses"]) == {"200", "400", "404", "408", "413", "415", "422", "500", "503", "504"}
    for operation in operations(document):
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            if status != "200":
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
                for code, example in content["examples"].items():
                    assert example["value"]["error"]["code"] == code


def test_documentation_page_has_a_strict_policy_and_loads_only_local_files(client: TestClient) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="(.+?)"', page.text)

    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script(?! src=)|<style| on\w+=| style=", page.text) == []
    assert len(loaded) == 4
    for address in (*loaded, "openapi.json"):
        assert client.get(f"/{address}").status_code == 200
    assert client.get("/docs/start.js").headers["content-type"].startswith("text/javascript")


def test_openapi_document_and_page_work_behind_a_prefix(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    (server,) = document["servers"]

    assert urljoin("https://example.org/prefix/openapi.json", server["url"]) == "https://example.org/prefix/"
    assert 'url: "openapi.json"' in client.get("/docs/start.js").text
