"""Heads that HTTP allows and that few clients send: transfer codings, and addresses as targets."""

import json

import pytest

from tests.serving.protocol_server import GET, Running, serve
from tests.serving.raw_http import statuses


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"Transfer-Encoding: chunked", [200, 200]),
        (b"Transfer-Encoding: Chunked ", [200, 200]),
        (b"Transfer-Encoding: gzip, chunked", [400]),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", [400]),
        (b"Transfer-Encoding: x-gzip,chunked\r\nConnection: Upgrade\r\nUpgrade: h2c", [400]),
    ],
    ids=["chunks", "capitals", "gzip", "on two lines", "with an upgrade"],
)
def test_a_body_in_another_transfer_coding_than_chunks_is_400(lines: bytes, expected: list[int]) -> None:
    async def test(server: Running) -> None:
        head = b"POST /body HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n"
        answer = await server.exchange(head + b"2\r\nok\r\n0\r\n\r\n" + GET, end=True)
        assert statuses(answer) == expected
        if expected == [400]:
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["code"] == "malformed_request"
            assert "Transfer-Encoding" in error["message"]

    serve(test)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://x", b"/"),
        (b"HTTPS://x:8000", b"/"),
        (b"http://x?a=/b", b"/"),
        (b"http://x/", b"/"),
        (b"http://x/plain?a=b", b"/plain"),
        (b"/http://x", b"/http://x"),
    ],
)
def test_the_target_may_be_an_address_with_or_without_a_path(target: bytes, path: bytes) -> None:
    async def test(server: Running) -> None:
        answer = await server.exchange(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n", end=True)
        assert (statuses(answer), answer.partition(b"\r\n\r\n")[2]) == ([200], path)

    serve(test)
