"""API keys, and response headers that restrict browsers."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import RequestError
from serving.http.browser_headers import SECURITY_HEADERS
from serving.http.errors import error_response
from serving.http.paths import route_path
from serving.interface.keys import NEEDS_KEY, Keys


class SecurityHeaders:
    """ASGI middleware that adds headers which forbid browsers everything a response does not allow itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                missing = [entry for entry in SECURITY_HEADERS if entry[0] not in names]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ApiKeys:
    """ASGI middleware that answers 401 to requests without one of the keys for their path.

    A key comes as `Authorization: Bearer KEY` or as `X-API-Key: KEY`. White space around it does not count.

    Args:
        keys: by path without a root_path of ASGI.
        open_paths: whole paths that need no key.
    """

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: Collection[str] = ()) -> None:
        self.app = app
        self._open_paths = open_paths
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may_pass(scope):
            response = error_response(scope, RequestError("unauthorized", NEEDS_KEY))
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        path = route_path(scope)
        if path in self._open_paths:
            return True
        headers = Headers(scope=scope)
        authorization, x_api_key = headers.get("authorization", ""), headers.get("x-api-key", "")
        return self._keys.admit(path, authorization.encode("latin-1"), x_api_key.encode("latin-1"))
