"""The limit on request bodies, counted while they stream in and before anything parses them."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import error_response

# How long a refused client may go on sending. Closing at once would reset the connection, and clients that send all
# of their body before they read, as most do, would never see the answer.
LINGER_SECONDS = 1.0


class _BodyTooLargeError(Exception):
    """More bytes came than the limit allows."""


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`.

    A Content-Length over the limit is refused before any of the body is read. Without one, or where it lies, the bytes
    that come are counted, and the application stops receiving at the limit. Either way the connection is closed.
    (FastAPI's own `max_body_size` answers plain text, and keeps the connection and with it the rest of the body.)
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        received = 0
        more_to_come = True

        async def counting_receive() -> Message:
            nonlocal received, more_to_come
            message = await receive()
            received += len(message.get("body", b""))
            more_to_come = message.get("more_body", False)
            if received > self.max_bytes:
                raise _BodyTooLargeError
            return message

        try:
            content_length = Headers(scope=scope).get("content-length", "")
            if content_length.isdecimal() and int(content_length) > self.max_bytes:
                raise _BodyTooLargeError
            await self.app(scope, counting_receive, send)
        except _BodyTooLargeError:
            await self._refuse(scope, receive if more_to_come else None, send)

    async def _refuse(self, scope: Scope, rest: Receive | None, send: Send) -> None:
        message = f"a request body may have at most {self.max_bytes} bytes"
        response = error_response(scope, 413, "body_too_large", message, {"connection": "close"})
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if rest is not None:
            await _discard(rest)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
