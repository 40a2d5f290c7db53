"""What HTTP/1.1 asks for and HTTP/1.0 does not know: `Host`, chunks and `100 Continue`."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from tests.serving.protocol_server import GET, Running, serve
from tests.serving.raw_http import statuses
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", [400]),
        (b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", [400]),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [200]),
        (GET.replace(b"plain", b"slow") + b"GET / HTTP/1.1\r\n\r\n" + GET, [200, 400]),
        (b"GET / HTTP/1.0\r\n\r\n", [200]),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", [200]),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", [400]),
    ],
    ids=["none", "two", "empty", "none in the next", "1.0, none", "1.0, one", "1.0, two"],
)
def test_a_request_names_its_host_once_except_in_http_1_0(sent: bytes, expected: list[int]) -> None:
    """RFC 9112, section 3.2; health checks of load balancers speak HTTP/1.0 and name none."""

    async def test(server: Running) -> None:
        assert statuses(await server.exchange(sent, end=True)) == expected

    serve(test)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("has_length", [False, True], ids=["unknown length", "known length"])
def test_only_http_1_1_gets_an_answer_in_chunks(version: str, has_length: bool) -> None:
    async def answer(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-length", b"6")] if has_length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def test(server: Running) -> None:
        sent = f"GET / HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        head, _, body = (await server.exchange(sent)).partition(b"\r\n\r\n")

        is_chunked = version == "1.1" and not has_length
        assert (b"transfer-encoding: chunked" in head.lower()) == is_chunked
        assert body == (b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" if is_chunked else b"onetwo")
        assert head.count(b"connection: close") == 1

    serve(test, app=answer)


@pytest.mark.parametrize(("version", "interim"), [("1.0", 0), ("1.1", 1)])
def test_only_http_1_1_is_told_to_continue(version: str, interim: int) -> None:
    async def test(server: Running) -> None:
        reader, writer = await server.connect()
        head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n1".encode())
        async with asyncio.timeout(10):
            answers = statuses(await reader.read())
        assert answers == [100] * interim + [200]

    serve(test)


def test_an_answer_that_only_the_end_of_the_connection_ends_is_the_last_while_the_server_drains() -> None:
    may_answer = asyncio.Event()

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one"})

    async def test(server: Running) -> None:
        reader, writer = await server.connect()
        request = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        writer.write(request)
        await eventually(lambda: server.state.tasks)
        server.state.drain()
        writer.write(request)
        await eventually(lambda: server.state.pipelined)
        may_answer.set()
        async with asyncio.timeout(10):
            answers = await reader.read()

        assert statuses(answers) == [200]
        assert answers.endswith(b"\r\n\r\none")

    serve(test, app=answer)
