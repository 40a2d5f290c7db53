"""uvicorn's HTTP protocol, with limits on request heads and slow clients, and with fewer system calls."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.parser import HttpParser

MAX_HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT = 20.0
SEND_TIMEOUT = 30.0  # for a client to read an answer
MAX_PIPELINED = 64  # requests that wait for earlier ones of their connection; each takes kilobytes


def _answer(status: HTTPStatus, code: str, message: str) -> bytes:
    body = json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":"))
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
    return f"HTTP/1.1 {status} {status.phrase}\r\n{head}\r\n\r\n{body}".encode()


# Answers to requests that never reach the application.
_MALFORMED = _answer(HTTPStatus.BAD_REQUEST, "malformed_request", "the request is not valid HTTP")
_TOO_LARGE = _answer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "the headers of a request are too large"
)


class JoinedWrites:
    """A transport that joins the writes of one turn of the event loop into one system call.

    uvicorn writes the head and the body of an answer separately, and the first write would wake the client for half an
    answer. On small answers, joining them saves CPU time (docs/decisions/0011).
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _send(self) -> None:
        data = b"".join(self._written)
        self._written.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)


class LimitedProtocol(HttpToolsProtocol):
    """Closes connections that abuse HTTP.

    It closes a connection if the head of a request is too large or arrives too slowly, if trailers or chunk extensions
    are too large, if more requests are pipelined than any client needs, or if the client does not read the answers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = HttpParser(self)  # type: ignore[assignment]
        self._bytes_beside_body = 0  # since the last byte of a body
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause writing until everything is sent
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_send_timer()
        self.parser.close()  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.loop.call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._bytes_beside_body += len(data)
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self.pipeline.clear()
            self.transport.close()
        if self._bytes_beside_body > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._is_idle:
                self.transport.write(_TOO_LARGE)
            self.transport.close()
        # Bytes between requests, such as an empty line, start no request, but they cancel uvicorn's own timeout.
        if self._head_timer is None and self._is_idle and not self.transport.is_closing():
            self._start_head_timer()

    def send_400_response(self, _: str) -> None:
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(_MALFORMED)
        self.transport.close()

    def on_message_begin(self) -> None:
        if self._head_timer is None:
            self._start_head_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._bytes_beside_body = 0
        super().on_message_complete()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered on this connection."""
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
