"""The limits on request bodies, on bytes and on time, kept while they stream in and before anything parses them."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ApiError, OverloadedError, error_response

# How long a client that is answered early may go on sending. Closing at once would reset the connection, and clients
# that send all of their body before they read, as most do, would never see the answer.
LINGER_SECONDS = 1.0


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`, and 408 to one that takes too long.

    A Content-Length over the limit is refused before any of the body is read. Without one, or where it lies, the bytes
    that come are counted. 503 is the answer where all requests together hold more than `max_total_bytes`: each of many
    may be within its limit. What inflates a body adds its new size, by `scope["pdeinfer.hold"](size)`. Where an answer
    is sent before its request's body was read, the connection is closed. (FastAPI's own `max_body_size` answers plain
    text, and keeps the connection and with it the rest of the body.)
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_total_bytes: int, timeout: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_total_bytes = max_total_bytes
        self.timeout = timeout
        self.total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        headers = Headers(scope=scope)
        content_length = headers.get("content-length", "0")
        more_to_come = content_length != "0" or "transfer-encoding" in headers
        received = held = 0
        deadline = asyncio.get_running_loop().time() + self.timeout

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self.total_bytes += size
            if self.total_bytes > self.max_total_bytes:
                raise OverloadedError

        async def limited_receive() -> Message:
            nonlocal received, more_to_come
            if not more_to_come:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                seconds = f"{self.timeout:g} seconds"
                raise ApiError(408, "body_timeout", f"the body of a request must be sent within {seconds}") from None
            size = len(message.get("body", b""))
            received += size
            more_to_come = message.get("more_body", False)
            if received > self.max_bytes:
                raise self._too_large()
            hold(size)
            return message

        async def lingering_send(message: Message) -> None:
            if more_to_come and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            elif more_to_come and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        if content_length.isdecimal() and int(content_length) > self.max_bytes:
            error = self._too_large()
            response = error_response(scope, error.status, error.code, error.message)
            await response(scope, receive, lingering_send)
        else:
            scope["pdeinfer.hold"] = hold
            try:
                await self.app(scope, limited_receive, lingering_send)
            finally:
                self.total_bytes -= held

    def _too_large(self) -> ApiError:
        return ApiError(413, "body_too_large", f"a request body may have at most {self.max_bytes} bytes")


async def _discard(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
