"""Limits on request bodies, on bytes and on time, enforced as the bodies stream in."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import RequestError
from serving.http.byte_budget import ByteBudget
from serving.http.errors import error_response

# How long a client may go on sending after an early answer. Closing at once would reset the connection. Most clients
# send all of their body before they read, so they would never see the answer.
LINGER_SECONDS = 1.0


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `max_bytes`, and 408 to one that takes too long.

    It refuses a Content-Length over the limit before it reads the body, and counts the bytes in case the header is
    missing or lies. It answers 503 if all requests together hold too many bytes, as each may be within its own limit.
    If a response is sent before the body was read, it closes the connection. (FastAPI's own `max_body_size` answers
    plain text, and keeps the connection and with it the rest of the body.)

    Args:
        max_bytes: of one body.
        budget: for all bodies.
        timeout: seconds to send a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, budget: ByteBudget, timeout: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.budget = budget
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        headers = Headers(scope=scope)
        content_length = headers.get("content-length", "0")
        more_to_come = content_length != "0" or "transfer-encoding" in headers
        received = 0
        deadline = asyncio.get_running_loop().time() + self.timeout

        async def limited_receive() -> Message:
            nonlocal received, more_to_come
            if not more_to_come:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                seconds = f"{self.timeout:g} seconds"
                raise RequestError("body_timeout", f"the body of a request must be sent within {seconds}") from None
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
            await error_response(scope, self._too_large())(scope, receive, lingering_send)
            return
        with self.budget.lease() as hold:
            await self.app(scope, limited_receive, lingering_send)

    def _too_large(self) -> RequestError:
        return RequestError("body_too_large", f"a request body may have at most {self.max_bytes} bytes")


async def _discard(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
