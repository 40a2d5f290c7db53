"""Gives errors made by libraries the same shape as the server's own."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import shaped_response

_KEPT = ("allow", "content-range", "vary", "connection")


class ErrorShape:
    """ASGI middleware that replaces error responses that are not JSON: of static files and of CORS preflights.

    Their text becomes the message of the error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        replaced_start: Message | None = None
        is_answered = False

        async def shaped_send(message: Message) -> None:
            nonlocal replaced_start, is_answered
            if (
                message["type"] == "http.response.start"
                and message["status"] >= HTTPStatus.BAD_REQUEST
                and Headers(raw=message["headers"]).get("content-type") != "application/json"
            ):
                replaced_start = message
            if replaced_start is None:
                await send(message)
            elif message["type"] == "http.response.body" and not is_answered:
                is_answered = True
                headers = Headers(raw=replaced_start["headers"])
                status = HTTPStatus(replaced_start["status"])
                is_text = headers.get("content-type", "").startswith("text/plain")
                text = message.get("body", b"").decode(errors="replace") if is_text else ""
                kept = {name: value for name, value in headers.items() if name in _KEPT}
                response = shaped_response(scope, status, status.name.lower(), text or status.phrase, kept)
                await response(scope, receive, send)

        await self.app(scope, receive, shaped_send)
