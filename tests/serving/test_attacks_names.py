"""Forged names of models and files, and attempts to bypass the keys, on real sockets."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Server, running_server
from tests.serving.raw_http import exchange, statuses


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "log", str(package_folder)) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def locked(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text("the-only-key\n")
    (folder / "admin").write_text("the-admin-key\n")
    keys = ("--api-keys-file", str(folder / "keys"), "--admin-keys-file", str(folder / "admin"))
    with running_server(folder / "log", str(package_folder), *keys) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


FORGED = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\..\\windows\\win.ini",
    "file:%2f%2f%2fetc%2fpasswd",
    "http:%2f%2f127.0.0.1:1%2f",
    "tiny-grey%00",
    "tiny-grey%0d%0aX-Injected:%20yes",
    "%ff%fe",
    "%ed%a0%80",
    "a" * 5000,
    "{{7*7}}",
    "__class__",
]


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/{}"),
        ("POST", "/v2/models/{}/infer"),
        ("GET", "/v2/models/tiny-grey/versions/{}"),
        ("POST", "/classify?model={}"),
        ("GET", "/static-offline-docs/{}"),
    ],
)
def test_forged_name_is_not_found_and_opens_no_file(server: Server, method: str, path: str, name: str) -> None:
    head = f"{method} {path.format(name)} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    answer = exchange(server, head.encode(), end=False)

    assert statuses(answer)[0] in (400, 404, 405, 415, 422)
    assert b"root:" not in answer
    assert b"\r\nx-injected" not in answer.lower()
    headers, _, body = answer.partition(b"\r\n\r\n")
    if b"application/json" in headers:
        assert "error" in json.loads(body)


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "//models", "/./models", "/models/", "/MODELS", "/models%20", "/%6dodels", "http://x/models", "*"),
        *("/healthz/../models", "/docs/../models", "/healthz%2f..%2fmodels", "/healthz/%2e%2e/models", "/models#/docs"),
        *(
            "/models;/docs",
            "/models?a=/healthz",
            "/v2/health/../models/tiny-grey",
            "/v2/health/%2e%2e/models/tiny-grey",
        ),
        *(
            "/v2/models/tiny-grey",
            "/v2/models/tiny-grey/config",
            "/metrics",
            "/docs/../metrics",
            "/docs/%2e%2e/metrics",
        ),
    ],
)
@pytest.mark.parametrize(
    "header",
    [
        *("X: y", "Authorization: Bearer", "Authorization: Bearer  ", "Authorization: Bearer the-only", "X-API-Key:"),
        *("Authorization: Basic the-only-key", "X-API-Key: the-only-key,the-only-key", "Cookie: key=the-only-key"),
    ],
)
def test_no_path_or_header_bypasses_the_keys(locked: Server, path: str, header: str) -> None:
    answer = exchange(locked, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n".encode())

    assert statuses(answer)[0] in (400, 401, 404, 405)
    assert b'tiny-grey"' not in answer
    assert b"pdeinfer_" not in answer


@pytest.mark.parametrize("name", [*FORGED, "tiny-grey"])
@pytest.mark.parametrize("key", ["the-only-key", "the-admin-key"])
def test_admin_route_opens_no_file_and_needs_an_admin_key(locked: Server, name: str, key: str) -> None:
    body = b'{"action": "load"}'
    head = (
        f"POST /admin/models/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    answer = exchange(locked, head.encode() + body, end=False)

    is_allowed = key == "the-admin-key" and name == "tiny-grey"
    assert statuses(answer)[0] in ((200,) if is_allowed else (400, 401, 404, 405))
    assert b"root:" not in answer
