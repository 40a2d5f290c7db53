"""API keys, security headers, CORS, and the limits on request bodies."""

import asyncio
import gzip
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from serving.app import create_app
from serving.errors import OverloadedError, RequestError
from serving.http.byte_budget import ByteBudget
from serving.middleware import body_limit
from serving.middleware.body_limit import BodyLimit
from serving.settings import Settings
from tests.waiting import PATIENCE, eventually


def client_for(package_folder: Path, **values: Any) -> TestClient:
    settings = Settings(models=(str(package_folder),), device="cpu", threads=1, **values)
    return TestClient(create_app(settings), raise_server_exceptions=False)


def code_of(response: Response) -> str:
    return response.json()["error"]["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer second-key"},
        {"Authorization": "Bearer  first-key "},
        {"Authorization": b" Bearer first-key\t"},
        {"X-API-Key": "second-key"},
        {"X-API-Key": "second-key "},
        {"X-API-Key": b" \tsecond-key\t"},
    ],
)
def test_every_key_is_accepted_in_both_headers_with_white_space_around_it(
    package_folder: Path, headers: dict[str, Any]
) -> None:
    with client_for(package_folder, api_keys="first-key,second-key") as client:
        assert client.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer first-key-and-more"},
        {"Authorization": "Basic first-key"},
        {"X-API-Key": ""},
        {"X-API-Key": "first-key,second-key"},
        {"X-API-Key": "sch\u00fcssel".encode("latin-1")},
    ],
)
def test_request_without_a_valid_key_gets_401_and_no_key_is_logged(
    package_folder: Path, headers: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with client_for(package_folder, api_keys="first-key,second-key", access_log=True) as client:
        response = client.post("/classify", content=b"image", headers=headers)
        v2 = client.get("/v2/models/tiny-grey", headers=headers)

    assert (response.status_code, code_of(response)) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert v2.status_code == 401
    assert isinstance(v2.json()["error"], str)
    assert "first-key" not in response.text + caplog.text


def test_keys_leave_probes_and_documentation_open_but_not_metrics(package_folder: Path) -> None:
    with client_for(package_folder, api_keys="key") as client:
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/metrics", "/models", "/v2", "/nowhere"):
            assert client.get(path).status_code == 401, path


def test_keys_hold_below_the_root_path_of_the_application(package_folder: Path) -> None:
    settings = Settings(models=(str(package_folder),), device="cpu", threads=1, api_keys="key", admin_keys="admin")
    with TestClient(create_app(settings), root_path="/pde") as client:
        for path in ("/", "/healthz", "/v2/health/ready", "/docs", "/openapi.json", "/page/app.js"):
            assert client.get(f"/pde{path}").status_code == 200, path
        for path in ("/models", "/metrics", "/nowhere"):
            assert client.get(f"/pde{path}").status_code == 401, path
        change = {"url": "/pde/admin/models/tiny-grey", "json": {"action": "reload"}}
        assert client.post(**change, headers={"X-API-Key": "key"}).status_code == 401
        assert client.post(**change, headers={"X-API-Key": "admin"}).status_code == 200
        assert isinstance(client.get("/pde/v2").json()["error"], str)


def test_the_page_is_found_without_the_slash_after_the_root_path(package_folder: Path) -> None:
    settings = Settings(models=(str(package_folder),), device="cpu", threads=1, api_keys="key")
    with TestClient(create_app(settings), root_path="/a/pde") as client:
        found = client.get("/a/pde?model=tiny-grey")

    assert (found.status_code, found.url.path, found.url.query) == (200, "/a/pde/", b"model=tiny-grey")


def test_settings_decide_whether_probes_and_metrics_need_a_key(package_folder: Path) -> None:
    with client_for(package_folder, api_keys="key", probes_need_key=True, metrics_need_key=False) as client:
        assert client.get("/healthz").status_code == 401
        assert client.get("/v2/health/ready").status_code == 401
        assert client.get("/healthz", headers={"X-API-Key": "key"}).status_code == 200
        assert client.get("/metrics").status_code == 200


def test_keys_can_come_from_a_file(package_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("from-file\n\nanother\n  # of the phone app\n")
    with client_for(package_folder, api_keys="key", api_keys_file=tmp_path / "keys") as client:
        for key in ("key", "from-file", "another"):
            assert client.get("/models", headers={"X-API-Key": key}).status_code == 200
        for key in ("", "#", "phone", "# of the phone app"):
            assert client.get("/models", headers={"X-API-Key": key}).status_code == 401


def test_responses_have_security_headers(package_folder: Path) -> None:
    with client_for(package_folder) as client:
        for path in ("/models", "/nowhere", "/docs"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_cors_allows_only_the_configured_origins(package_folder: Path) -> None:
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    with client_for(package_folder) as client:
        response = client.get("/models", headers={"Origin": "https://example.org"})
        assert not any(name.startswith("access-control") for name in response.headers)
        assert client.options("/classify", headers=preflight).status_code == 405
    with client_for(package_folder, cors_origins="https://example.org", api_keys="key") as client:
        allowed = client.options("/classify", headers=preflight)
        refused = client.options("/classify", headers={**preflight, "Origin": "https://example.com"})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        assert "access-control-allow-origin" not in refused.headers
        for names in (
            "content-encoding, inference-header-content-length",  # compressed binary tensors of V2
            "traceparent,tracestate,baggage",  # OpenTelemetry in the browser
            "authorization, x-api-key, x-request-id",
        ):
            headers = {**preflight, "Access-Control-Request-Headers": names}
            assert client.options("/v2/models/tiny-grey/infer", headers=headers).status_code == 200
        for method in ("GET", "HEAD"):
            headers = {**preflight, "Access-Control-Request-Method": method}
            assert client.options("/models", headers=headers).status_code == 200
        answer = client.get("/models", headers={"Origin": "https://example.org", "X-API-Key": "key"})
        assert "inference-header-content-length" in answer.headers["access-control-expose-headers"].lower()
    with client_for(package_folder, cors_origins="https://example.org", max_body_bytes=10) as client:
        too_large = client.post("/classify", content=bytes(11), headers={"Origin": "https://example.org"})
        assert too_large.status_code == 413
        assert too_large.headers["access-control-allow-origin"] == "https://example.org"
        client.app.state.models = None
        failed = client.get("/models", headers={"Origin": "https://example.org"})
        assert failed.status_code == 500
        assert failed.headers["access-control-allow-origin"] == "https://example.org"


def test_openapi_document_names_the_operations_that_need_a_key(package_folder: Path) -> None:
    with client_for(package_folder) as client:
        assert "securitySchemes" not in client.get("/openapi.json").json()["components"]
    with client_for(package_folder, api_keys="key") as client:
        document = client.get("/openapi.json").json()
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        for path in ("/classify", "/models", "/metrics", "/v2", "/v2/models/{model}/infer"):
            for operation in document["paths"][path].values():
                assert operation["security"] == [{"bearer": []}, {"header": []}]
                assert "401" in operation["responses"]
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert "security" not in document["paths"][path]["get"]


class Body:
    """A request to BodyLimit whose body arrives piece by piece, as the test sends it.

    Attributes:
        answer: the messages of the answer.
    """

    def __init__(self, limit: BodyLimit) -> None:
        self._chunks: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        scope = {"type": "http", "path": "/classify", "headers": [(b"transfer-encoding", b"chunked")]}
        self.answer: list[dict[str, Any]] = []
        self.task = asyncio.create_task(limit(scope, self._receive, self._send))

    def send(self, size: int, *, is_last: bool = False) -> None:
        self._chunks.put_nowait((bytes(size), not is_last))

    async def _receive(self) -> dict[str, Any]:
        body, more_body = await self._chunks.get()
        return {"type": "http.request", "body": body, "more_body": more_body}

    async def _send(self, message: Any) -> None:
        self.answer.append(message)


async def read_all(_: Any, receive: Any, __: Any) -> None:
    while (await receive())["more_body"]:
        pass


def test_total_bytes_of_all_bodies_are_limited_and_released_at_the_end() -> None:
    async def test() -> None:
        budget = ByteBudget(100)
        limit = BodyLimit(read_all, max_bytes=60, budget=budget, timeout=10)
        first, second = Body(limit), Body(limit)
        first.send(60)
        second.send(40)
        await asyncio.sleep(0.01)
        third = Body(limit)
        third.send(1)
        with pytest.raises(OverloadedError):
            await third.task
        first.send(0, is_last=True)
        await first.task
        fourth = Body(limit)
        fourth.send(60, is_last=True)
        second.send(0, is_last=True)
        await asyncio.gather(fourth.task, second.task)
        assert budget.held == 0

    asyncio.run(test())


def test_the_bytes_of_a_refused_body_are_forgotten_before_its_refusal_is_sent() -> None:
    budget = ByteBudget(100)
    with budget.lease() as first, budget.lease() as second:
        first(60)
        second(20)
        with pytest.raises(OverloadedError):
            second(21)
        assert budget.held == 60
        first(40)
    assert budget.held == 0


def test_the_end_of_an_early_answer_waits_for_the_rest_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most clients read only after they have sent all: closing the connection before would reset it."""
    monkeypatch.setattr(body_limit, "LINGER_SECONDS", PATIENCE)

    async def answer_early(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"too large"})

    async def test() -> None:
        body = Body(BodyLimit(answer_early, max_bytes=60, budget=ByteBudget(100), timeout=10))
        body.send(100)
        await eventually(lambda: len(body.answer) == 2 and body._chunks.empty())
        assert dict(body.answer[0]["headers"]) == {b"connection": b"close"}
        assert body.answer[1] == {"type": "http.response.body", "body": b"too large", "more_body": True}
        body.send(0, is_last=True)
        await body.task
        assert body.answer[2:] == [{"type": "http.response.body", "body": b""}]

    asyncio.run(test())


def test_inflated_bytes_count_towards_the_total_and_are_released_at_the_end(package_folder: Path) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    with client_for(package_folder, max_body_bytes=1_000_000, max_total_bytes=1_000_000) as client:
        for _ in range(3):  # what is refused, or done, makes room
            assert client.post("/classify", content=gzip.compress(bytes(900_000)), headers=headers).status_code == 422
            response = client.post("/classify", content=gzip.compress(bytes(1_000_000)), headers=headers)
            assert (response.status_code, code_of(response)) == (503, "overloaded")


def test_inflated_bytes_of_v2_count_towards_the_total(package_folder: Path) -> None:
    with client_for(package_folder, max_body_bytes=1_000_000, max_total_bytes=1_000_000) as client:
        body = gzip.compress(b"{" + b" " * 999_999)
        response = client.post("/v2/models/tiny-grey/infer", content=body, headers={"Content-Encoding": "gzip"})
        assert response.status_code == 503


def test_slow_body_is_rejected_with_body_timeout() -> None:
    async def test() -> None:
        body = Body(BodyLimit(read_all, max_bytes=60, budget=ByteBudget(100), timeout=0.05))
        for _ in range(3):
            body.send(1)
        with pytest.raises(RequestError) as error:
            await body.task
        assert error.value.code == "body_timeout"

    asyncio.run(test())
