"""The HTTP protocol on this event loop: a server with a minimal application, and its clients."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http.protocol import Connections, LimitedProtocol
from tests.waiting import eventually

App = Callable[[Scope, Receive, Send], Awaitable[None]]
GET = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW_SECONDS = 0.15


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and answer with the path; /slow takes its time."""
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.disconnect":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW_SECONDS)
    path = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(path))]})
    await send({"type": "http.response.body", "body": path})


class Running:
    """A server on this event loop."""

    def __init__(self, state: Connections, address: tuple[str, int]) -> None:
        self.state = state
        self.address = address
        self._clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self._clients.append(writer)
        return reader, writer

    async def exchange(self, sent: bytes, end: bool = False) -> bytes:
        """Send the bytes, and return what comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(sent)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")

    async def close(self) -> None:
        for writer in self._clients:
            writer.transport.abort()
        await eventually(lambda: not self.state.connections)


def serve(test: Callable[[Running], Awaitable[None]], app: App = application, **limits: Any) -> None:
    """Run a test against a server, on the event loop that the server uses."""
    state = Connections(**{"max_connections": 100, "max_head_bytes": 16_384, **limits})
    config = uvicorn.Config(app, http=LimitedProtocol, lifespan="off", log_config=None)
    config.load()

    async def run() -> None:
        listening = await asyncio.get_running_loop().create_server(
            lambda: LimitedProtocol(config, state, {}), "127.0.0.1", 0
        )
        server = Running(state, listening.sockets[0].getsockname())
        try:
            await test(server)
        finally:
            listening.close()
            await server.close()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
