"""Who may ask what, and what a browser may do with the answers."""

import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import error_response

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


class SecurityHeaders:
    """ASGI middleware that forbids browsers everything with an answer that does not say what it allows."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(entry for entry in _HEADERS if entry[0] not in names)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ApiKeys:
    """ASGI middleware that answers 401 to requests without one of the keys for their path.

    A key comes as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.

    Args:
        keys: by path prefix, the longest prefix decides; no keys for a prefix: it is open.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, Collection[str]]) -> None:
        self.app = app
        longest_first = sorted(keys, key=len, reverse=True)
        self._keys = [(prefix, [_digest(os.fsencode(key)) for key in keys[prefix]]) for prefix in longest_first]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may_pass(scope):
            message = "this needs a key: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            response = error_response(scope, 401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        keys = next((keys for prefix, keys in self._keys if scope["path"].startswith(prefix)), [])
        if not keys:
            return True
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = token.strip(" ") if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(sent.encode("latin-1"))  # of the bytes that were sent
        # All of them are compared, each in constant time: the time tells nothing, the length neither.
        return any([hmac.compare_digest(digest, key) for key in keys])  # noqa: C419


def document_keys(document: dict[str, Any], keys: Mapping[str, Collection[str]]) -> None:
    """Add to an OpenAPI document which operations need a key, by the same prefixes, and what they answer without."""
    longest_first = sorted(keys, key=len, reverse=True)
    for path, operations in document["paths"].items():
        if not keys[next(prefix for prefix in longest_first if path.startswith(prefix))]:
            continue
        error = {"$ref": f"#/components/schemas/{'V2Error' if path.startswith('/v2') else 'ErrorResponse'}"}
        for operation in operations.values():
            operation["security"] = [{name: []} for name in _SCHEMES]
            operation["responses"].setdefault(
                "401", {"description": "No key", "content": {"application/json": {"schema": error}}}
            )
    document["components"]["securitySchemes"] = _SCHEMES


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
