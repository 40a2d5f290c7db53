"""Gives errors made by libraries the same shape as the server's own."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import shaped_response

_KEPT = ("allow", "content-range", "vary", "connection")


class ErrorShape:
    """ASGI middleware that replaces error responses that are not JSON: of static files and of CORS preflights."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_replaced = False

        async def shaped_send(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                headers = Headers(raw=message["headers"])
                if headers.get("content-type") != "application/json":
                    is_replaced = True
                    status = HTTPStatus(message["status"])
                    kept = {name: value for name, value in headers.items() if name in _KEPT}
                    response = shaped_response(scope, status, status.name.lower(), status.phrase, kept)
                    await response(scope, receive, send)
            if not is_replaced:
                await send(message)

        await self.app(scope, receive, shaped_send)
