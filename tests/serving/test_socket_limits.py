"""Requests on real sockets that exceed a limit or end early, and what of them is logged."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from serving.middleware.body_limit import LINGER_SECONDS
from tests.servers import Server, running_server
from tests.serving.raw_http import read_response

MAX_BODY_BYTES = 50_000


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder), "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


def test_a_chunked_body_over_the_limit_is_413_before_its_end_and_closes_the_connection(server: Server) -> None:
    chunk = b"2710\r\n" + b"0" * 10_000 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(chunk * (MAX_BODY_BYTES // 10_000 + 1))

        started = time.monotonic()
        status, headers, body = read_response(connection)
        answered_after = time.monotonic() - started

        assert status == 413
        assert headers["connection"] == "close"
        assert json.loads(body)["error"]["code"] == "body_too_large"
        assert answered_after < LINGER_SECONDS
        assert connection.recv(1) == b""  # closed, though the body never ended


def test_a_content_length_over_the_limit_is_413_before_the_body_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n"
        )

        status, headers, body = read_response(connection)

    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_a_client_that_sends_all_of_its_body_before_it_reads_gets_the_413(server: Server) -> None:
    response = httpx2.post(f"http://127.0.0.1:{server.port}/classify", content=b"0" * 20_000_000)

    assert response.status_code == 413


def test_a_client_that_disconnects_causes_no_traceback(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n0"
        )
        time.sleep(0.1)

    assert httpx2.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200


def test_no_image_bytes_are_logged(server: Server) -> None:
    httpx2.post(
        f"http://127.0.0.1:{server.port}/classify", content=b"secret pixels", headers={"Content-Type": "image/png"}
    )

    assert "secret" not in server.log.read_text()


def test_endless_headers_are_431(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 32_768)
        status, headers, body = read_response(connection)
    assert (status, headers["connection"]) == (431, "close")
    assert json.loads(body)["error"]["code"] == "headers_too_large"


def test_endless_trailers_are_431_and_close_the_connection(server: Server) -> None:
    with server.connect() as connection, suppress(ConnectionError):
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\n0\r\n0\r\n"
        )
        for number in range(100):
            connection.sendall(b"X-%d: %s\r\n" % (number, b"a" * 2000))
        assert read_response(connection)[0] == 431
        assert connection.recv(1) == b""
