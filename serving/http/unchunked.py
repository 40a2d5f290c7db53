"""Answers of unknown length to HTTP/1.0, which knows no chunks: they end with the connection (RFC 9112, 6.1)."""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class UnchunkedCycle(RequestResponseCycle):
    """uvicorn's request of HTTP/1.0 and its answer, after which the connection closes in any case.

    uvicorn creates the cycle; `LimitedProtocol` then changes its class to this one.
    """

    _has_length = True  # whether the answer says its length

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._has_length:
                self.chunked_encoding = False
        elif message["type"] == "http.response.body" and not self._has_length:
            self.expected_content_length = len(message.get("body", b""))  # uvicorn compares each part with it
        await super().send(message)
