"""Every error has the one shape, whoever's code made it."""

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/docs/assets/nowhere", {}, 404),
        ("GET", "/docs/assets/", {}, 404),
        ("GET", "/docs/assets/%2e%2e/x", {}, 404),
        ("POST", "/docs/assets/favicon.png", {}, 405),
        ("GET", "/docs/assets/favicon.png", {"Range": "bytes=abc"}, 400),
        ("GET", "/docs/assets/favicon.png", {"Range": "pages=1-2"}, 400),
        ("GET", "/docs/assets/favicon.png", {"Range": "bytes=99999999-"}, 416),
        ("GET", "/nowhere", {}, 404),
        ("DELETE", "/classify", {}, 405),
        ("OPTIONS", "/classify", {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, 400),
    ],
)
def test_error_of_a_mounted_application_or_a_middleware_has_the_shape_of_all_errors(
    client: TestClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    settings = client.app.state.settings.model_copy(  # type: ignore[attr-defined]
        update={"cors_origins": ("https://example.org",)}
    )

    response = TestClient(create_app(Settings(**settings.model_dump()))).request(method, path, headers=headers)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"code", "message"}
    assert ("content-range" in response.headers) == (status == 416)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Origin": "https://evil.example"}, "Disallowed CORS origin"),
        ({"Access-Control-Request-Headers": "x-other"}, "Disallowed CORS headers"),
        ({"Access-Control-Request-Method": "DELETE"}, "Disallowed CORS method"),
    ],
)
def test_a_refused_preflight_says_what_is_not_allowed(
    client: TestClient, headers: dict[str, str], message: str
) -> None:
    settings = client.app.state.settings.model_copy(  # type: ignore[attr-defined]
        update={"cors_origins": ("https://example.org",)}
    )
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST", **headers}

    response = TestClient(create_app(Settings(**settings.model_dump()))).options("/classify", headers=preflight)

    assert response.json() == {"error": {"code": "bad_request", "message": message}}


def test_an_error_answers_head_without_a_body(client: TestClient) -> None:
    response = client.head("/docs/assets/favicon.png", headers={"Range": "bytes=abc"})

    assert response.status_code == 400
    assert response.content == b""
