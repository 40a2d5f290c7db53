"""The protocol on a real socket, with an application of the test."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from serving import protocol
from serving.protocol import LimitedProtocol

SIZE = 60_000  # less than asyncio's own limit on what is not sent


def test_a_client_that_does_not_read_its_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server has closed the connection: what is not sent would be held for ever."""
    monkeypatch.setattr(protocol, "SEND_TIMEOUT", 0.2)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": bytes(SIZE)})

    config = uvicorn.Config(answer, http=LimitedProtocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()

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
            async with asyncio.timeout(10):
                while not state.total_requests or state.connections:
                    await asyncio.sleep(0.01)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(SIZE)
        finally:
            writer.transport.abort()
            listening.close()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(test())
