"""The HTTP protocol on a real socket, with a minimal application."""

import asyncio
import gc
import socket
import weakref

import httptools
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http import protocol
from serving.http.joined_writes import JoinedWrites
from serving.http.parser import HttpParser
from serving.http.protocol import Connections, LimitedProtocol
from tests.waiting import eventually

GET = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
SIZE = 60_000  # below asyncio's own limit on unsent bytes


def test_a_client_that_does_not_read_its_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the server has closed the connection: the unsent rest would be held for ever."""
    monkeypatch.setattr(protocol, "SEND_TIMEOUT", 0.2)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(SIZE)})

    config = uvicorn.Config(answer, http=LimitedProtocol, lifespan="off", log_config=None)
    config.load()
    state = Connections(100, 16_384)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: LimitedProtocol(config, state, {}), "127.0.0.1", 0)
        listening.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.sockets[0].getsockname())
        reader, writer = await asyncio.open_connection(sock=client, limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            await eventually(lambda: state.total_requests and not state.connections)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(SIZE)
        finally:
            writer.transport.abort()
            listening.close()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(test())


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHo"])
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_a_connection_that_sends_an_incomplete_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes
) -> None:
    """Even if it sends an empty line, which the parser skips before a request."""
    if not before:
        monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(answer, http=LimitedProtocol, lifespan="off", log_config=None, timeout_keep_alive=1)
    config.load()
    state = Connections(100, 16_384)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: LimitedProtocol(config, state, {}), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        try:
            async with asyncio.timeout(5):
                if before:
                    writer.write(before)
                    await reader.readuntil(b"ok")
                    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)
                writer.write(sent)
                assert await reader.read() == b""
        finally:
            writer.transport.abort()
            listening.close()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(test())


def upgrade(path: str, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("sent", "requests"),
    [
        (upgrade("/a", f"Content-Length: {len(GET)}") + GET, [("/a", GET)]),
        (upgrade("/a", "Content-Length: 2") + b"ok" + GET, [("/a", b"ok"), ("/plain", b"")]),
        (upgrade("/a", "Content-Length: 0") + GET, [("/a", b""), ("/plain", b"")]),
        (upgrade("/a") + upgrade("/b", "content-length: 1") + b"1" + GET, [("/a", b""), ("/b", b"1"), ("/plain", b"")]),
        (
            upgrade("/a", "Transfer-Encoding: chunked") + b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n" + GET,
            [("/a", b"ok!"), ("/plain", b"")],
        ),
        (upgrade("/a") * 100, [("/a", b"")] * 100),
    ],
    ids=["a request as the body", "a length", "no length", "one after the other", "chunks", "many"],
)
def test_a_request_that_offers_another_protocol_is_an_ordinary_request(
    sent: bytes, requests: list[tuple[str, bytes]], step: int
) -> None:
    protocol = Recorder()
    parser = HttpParser(protocol)
    for start in range(0, len(sent), step):
        parser.feed_data(sent[start : start + step])
    assert protocol.requests == requests


def test_another_protocol_behind_such_a_request_is_an_error() -> None:
    parser = HttpParser(Recorder())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(upgrade("/a", "Content-Length: 2") + b"ok" + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


class Recorder:
    """Records the path and the body of every complete request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []

    def on_message_begin(self) -> None:
        self.path = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_header(self, _: bytes, __: bytes) -> None:
        pass

    def on_headers_complete(self) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.requests.append((self.path.decode(), self.body))


def test_a_closed_connection_is_freed_without_the_garbage_collector() -> None:
    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(answer, http=LimitedProtocol, lifespan="off", log_config=None)
    config.load()

    async def closed_connection() -> weakref.ref[LimitedProtocol]:
        connection = LimitedProtocol(config, Connections(100, 16_384), {})
        connection.connection_made(Unconnected())
        connection.data_received(GET)
        await asyncio.sleep(0.01)
        connection.connection_lost(None)
        await asyncio.sleep(0.01)
        return weakref.ref(connection)

    async def test() -> None:
        await closed_connection()
        gc.collect()
        gc.disable()
        try:
            assert (await closed_connection())() is None
        finally:
            gc.enable()

    asyncio.run(test())


class Unconnected(asyncio.Transport):
    """A transport to nowhere."""

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class _Transport:
    """Records what is written to it."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls

    def get_extra_info(self, name: str) -> str:
        return name


def test_writes_of_one_turn_are_sent_at_once_and_before_the_connection_closes() -> None:
    transport = _Transport()

    async def write() -> None:
        joined = JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        joined.write(b"head ")
        joined.write(b"body")
        assert transport.calls == []
        await asyncio.sleep(0)
        joined.write(b"more")
        joined.close()
        joined.write(b"too late")
        await asyncio.sleep(0)

    asyncio.run(write())

    assert transport.calls == [b"head body", b"more", "close"]
