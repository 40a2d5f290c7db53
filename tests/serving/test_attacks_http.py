"""Hostile clients on real sockets: malformed HTTP, floods, slow and silent clients."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.images.image_makers import as_png
from tests.servers import Server, running_server
from tests.serving.raw_http import exchange, post, resident_megabytes, statuses

MAX_BODY_BYTES = 200_000
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc for the server's memory")


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder), "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server


@pytest.fixture(autouse=True)
def unharmed(server: Server, image: bytes) -> Iterator[None]:
    """After each attack the server classifies, has logged no traceback and holds no more memory than before."""
    before = resident_megabytes(server)
    yield
    response = httpx2.post(
        f"http://127.0.0.1:{server.port}/classify", content=image, headers={"Content-Type": "image/png"}, timeout=30
    )
    assert response.status_code == 200
    assert "Traceback" not in server.log.read_text()
    assert resident_megabytes(server) < before + 60


@pytest.fixture(scope="module")
def image(pixels: np.ndarray) -> bytes:
    return as_png(pixels[0])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /healthz FTP/1.1\r\nHost: x\r\n\r\n",
        b"GE\0T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /heal\0thz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nName : value\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nName: a\0b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\nContent-Length: x\r\n\r\n",
        post("/classify", b"", "Content-Length: -1"),
        post("/classify", b"", "Content-Length: +5"),
        post("/classify", b"", "Content-Length: 0x10"),
        post("/classify", b"", "Content-Length: " + "9" * 5000),
        post("/classify", b"12345", "Content-Length: 5", "Content-Length: 6"),
        post("/classify", b"zz\r\n\r\n", "Transfer-Encoding: chunked"),
        post("/classify", b"-1\r\n\r\n", "Transfer-Encoding: chunked"),
        post("/classify", b"f" * 40 + b"\r\n", "Transfer-Encoding: chunked"),
        post("/classify", b"1\r\nab\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        post("/classify", b"0\r\n\r\n", "Transfer-Encoding: chunked, identity"),
        post("/classify", b"0\r\n\r\n", "Transfer-Encoding: xchunked"),
        post("/classify", b"0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 5"),
    ],
)
def test_malformed_http_is_rejected_and_the_connection_closed(server: Server, request_bytes: bytes) -> None:
    answer = exchange(server, request_bytes)

    assert statuses(answer) in ([], [400], [413], [415])
    assert answer == b"" or json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


@pytest.mark.parametrize(
    "headers",
    [("Content-Length: 6", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Content-Length: 6")],
)
def test_request_cannot_be_smuggled_behind_an_ambiguous_length(server: Server, headers: tuple[str, str]) -> None:
    answer = exchange(server, post("/classify", b"0\r\n\r\nGET /models HTTP/1.1\r\nHost: x\r\n\r\n", *headers))

    assert b"tiny-grey" not in answer
    assert statuses(answer) in ([], [400])


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = ["/healthz", "/nowhere", "/v2", "/v2/nowhere"] * 5
    requests = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths)

    answer = exchange(server, requests, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", end=False)

    assert statuses(answer)[:-1] == [200, 404, 200, 404] * 5


def test_body_in_chunks_and_packets_of_one_byte_is_classified(server: Server, image: bytes) -> None:
    head = post("/classify", b"", "Transfer-Encoding: chunked", "Connection: close")

    answer = exchange(server, head, *(b"1\r\n%c\r\n" % byte for byte in image), b"0\r\n\r\n", end=False)

    assert statuses(answer) == [200]


def test_body_shorter_than_its_length_leaves_nothing_behind(server: Server, image: bytes) -> None:
    answer = exchange(server, post("/classify", image[:-9], f"Content-Length: {len(image)}"))

    assert statuses(answer) in ([], [400])


def test_bytes_after_a_body_do_not_belong_to_it(server: Server, image: bytes) -> None:
    answer = exchange(server, post("/classify", image + b"\0garbage\r\n\r\n", f"Content-Length: {len(image)}"))

    assert statuses(answer) in ([200, 400], [200], [400])


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-{number}: {number}" for number in range(20_000)],
        ["X: " + "a" * 200_000],
        ["a" * 200_000 + ": x"],
        ["Cookie: " + "a=b; " * 40_000],
    ],
    ids=["many", "long value", "long name", "cookies"],
)
def test_flood_of_headers_is_rejected(server: Server, lines: list[str]) -> None:
    answer = exchange(server, post("/classify", b"", *lines), end=False)

    assert statuses(answer) in ([], [400], [431])


def test_endless_path_is_rejected(server: Server) -> None:
    answer = exchange(server, b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", end=False)

    assert statuses(answer) in ([], [400], [414], [431])


def test_endless_chunk_extension_is_rejected(server: Server) -> None:
    head = post("/classify", b"", "Transfer-Encoding: chunked")

    answer = exchange(server, head, b"1;" + b"a" * 300_000, end=False)

    assert statuses(answer) in ([], [400], [413], [431])


def test_slow_and_silent_clients_do_not_hold_up_others(server: Server, image: bytes) -> None:
    partial = [
        b"",
        b"GET /hea",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nX: ",
        post("/classify", image[:20], f"Content-Length: {len(image)}"),
        post("/classify", b"1\r\n", "Transfer-Encoding: chunked"),
        post("/v2/models/tiny-grey/infer", b"{", "Content-Length: 1000"),
    ]
    waiting = [server.connect() for _ in range(200)]
    try:
        for number, connection in enumerate(waiting):
            connection.sendall(partial[number % len(partial)])
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            took = []
            for _ in range(20):
                started = time.monotonic()
                assert client.post("/classify", files={"file": image}).status_code == 200
                took.append(time.monotonic() - started)
        assert sorted(took)[10] < 1
    finally:
        for connection in waiting:
            connection.close()


def test_client_that_never_reads_its_responses_costs_little_memory(server: Server) -> None:
    before = resident_megabytes(server)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    silent = [server.connect() for _ in range(10)]
    try:
        for connection in silent:
            connection.setblocking(False)
            try:
                for _ in range(2000):
                    connection.send(request)
            except BlockingIOError:
                pass
        time.sleep(1)
        assert resident_megabytes(server) < before + 60
        assert httpx2.get(f"http://127.0.0.1:{server.port}/healthz", timeout=30).status_code == 200
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b""),
        ("multipart/form-data; boundary=" + "b" * 5000, b""),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=f\r\n" + b"X: y\r\n" * 20_000,
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=" + b"n" * 150_000),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n' * 3000),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\r\n' * 2500,
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\nContent-Transfer-Encoding: base64\r\n'
            b"\r\nAAAA\r\n--b--\r\n",
        ),
        ("multipart/form-data; boundary=b; charset=utf-7", b'--b\r\nContent-Disposition: form-data; name="f"\r\n'),
        ("multipart/form-data; boundary=\xff\xfe", b"--\xff\xfe\r\n"),
    ],
)
def test_hostile_form_is_rejected(server: Server, head: str, part: bytes) -> None:
    request = (
        f"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {head}\r\n"
        f"Content-Length: {len(part)}\r\n\r\n"
    )

    answer = exchange(server, request.encode("latin-1") + part, end=False)

    assert statuses(answer)[0] in (400, 413, 422)
