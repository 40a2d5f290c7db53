"""uvicorn's HTTP protocol, with limits on connections, heads and slow clients, and with fewer system calls."""

import asyncio
import select
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.http.browser_headers import cross_origin_headers
from serving.http.heads import refusal_of, with_path
from serving.http.joined_writes import JoinedWrites
from serving.http.parser import HttpParser
from serving.http.raw_answers import (
    MALFORMED,
    TINY_CHUNKS,
    TOO_LARGE,
    TOO_MANY,
    TOO_MANY_PIPELINED,
    RawAnswer,
)
from serving.http.unchunked import UnchunkedCycle
from serving.interface.request_id import request_id_for
from serving.telemetry.logs import request_id
from serving.telemetry.metrics import REJECTED
from serving.telemetry.requests import record_request

MAX_HEADERS = 100  # each takes hundreds of bytes of memory, however short it is
HEAD_TIMEOUT = 20.0
SEND_TIMEOUT = 30.0  # for a client to read an answer
LINGER_SECONDS = 1.0  # for a client to read its last answer, before unread bytes of its own reset the connection
QUIET_SECONDS = 1.0  # without a byte; then a connection without a request is closed when the server stops
# Bytes that the chunks of a body may have beside its content: each takes time, however short it is. Plain chunks of
# three bytes and more are never refused, and single bytes up to 340 KB: some clients send every token of JSON as one.
MAX_CHUNK_OVERHEAD = 2**20
_CHUNK_OVERHEAD_PER_BYTE = 2
_POLL_SECONDS = 0.05
_RESET_SECONDS = 0.002
_FEW_REQUESTS = 4

# Requests that wait for earlier ones of their connection: of one connection, and of all. Each takes kilobytes.
MAX_PIPELINED = 64
MAX_ALL_PIPELINED = 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Takes the method, the path and the query of a request that may start. Returns the answer that refuses it, or None.
Admission: TypeAlias = Callable[[bytes, str, bytes], RawAnswer | None]


class Connections(ServerState):
    """The state that uvicorn's connections share, with the limits on all of them.

    Args:
        max_connections: the most at a time.
        max_head_bytes: of the head of one request.
        admission: refuses requests by their heads.
        closed: called when a connection has been closed.
        origins: whose pages may read answers.
        access_log: whether every request is logged.

    Attributes:
        pipelined: the number of requests that wait for earlier ones of their connections.
        idle: the connections without a request, each since when; the longest idle is first.
        draining: whether connections close after their next answers.
    """

    def __init__(
        self,
        max_connections: int,
        max_head_bytes: int,
        admission: Admission = lambda *_: None,
        closed: Callable[[], None] = lambda: None,
        origins: Collection[str] = (),
        access_log: bool = False,
    ) -> None:
        super().__init__()
        self.origins = origins
        self.access_log = access_log
        self.closed = closed
        self.max_connections = max_connections
        self.max_head_bytes = max_head_bytes
        self.admission = admission
        self.pipelined = 0
        self.idle: dict[LimitedProtocol, float] = {}
        self.draining = False

    def drain(self) -> None:
        """Close every connection after its next answer, or after those that it waits for."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()  # type: ignore[union-attr]  # all are of LimitedProtocol

    def make_room(self, now: float) -> bool:
        """Close the connection that has been idle longest, and return whether there was one; now: the loop's time."""
        longest, since = next(iter(self.idle.items()), (None, now))
        return longest is not None and now - since >= QUIET_SECONDS and longest.close_idle()


class LimitedProtocol(HttpToolsProtocol):
    """Answers requests in their order, and closes connections that abuse HTTP.

    It answers 503 to a connection too many and, after the requests before it, 503 to a pipelined request too many, 431
    to a head, trailers or chunk extensions that are too large, and 400 to what is not HTTP, to a body in a transfer
    coding other than chunked, and to one in very many tiny chunks. It closes a connection if a head arrives too slowly,
    or if the client does not read the answers.

    Args:
        server_state: shared with the other connections of the server.
    """

    server_state: Connections

    def __init__(self, config: Any, server_state: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, server_state, *args, **kwargs)
        self.parser = HttpParser(self)  # type: ignore[assignment]
        self._bytes_beside_body = 0  # since the last byte of a body
        self._pieces: list[bytes] = []  # of a body, from the bytes that are being parsed
        self._chunk_overhead = 0  # bytes of a body beside its content, less those that its content allows
        self._head_bytes = 0
        self._is_head_complete = False
        self._is_too_large = False
        self._ignores_input = False
        self._is_half_closed = False
        self._last_answer: RawAnswer | None = None  # for what follows the requests that are being answered
        self._previous: RequestResponseCycle | None = None  # the request before `self.cycle`
        self._pipelined = 0
        self._active_at = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause writing until everything is sent
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self._active_at = self.loop.time()
        excess = len(self.connections) - self.server_state.max_connections
        if excess > self.server_state.max_connections:
            self.transport.abort()
        elif excess > 0 and not self.server_state.make_room(self._active_at):
            self._finish(TOO_MANY)
        else:
            self._start_head_timer()
            self.server_state.idle[self] = self._active_at

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._send_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._send_timer = self._end_timer = None
        self.parser.close()  # type: ignore[attr-defined]
        self.server_state.idle.pop(self, None)
        self.server_state.closed()
        super().connection_lost(exc)
        # What waits here refers back to the connection. Only the garbage collector would free them, much later.
        self.pipeline.clear()
        self._count_pipelined()
        self.cycle = self._previous = self.scope = self.headers = None  # type: ignore[assignment]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.loop.call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        self._active_at = self.loop.time()
        self._bytes_beside_body += len(data)
        self._chunk_overhead += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:  # uvicorn would log it without the client, who could fill the log
            self._refuse_input()
        self._hand_over_pieces()
        if self._bytes_beside_body > self.server_state.max_head_bytes and not self._ignores_input:
            self._is_too_large = True
            self._refuse_input()
        if self._is_head_complete and self._chunk_overhead > MAX_CHUNK_OVERHEAD:
            self._refuse_input(TINY_CHUNKS)
        # Bytes between requests, such as an empty line, start no request, but they cancel uvicorn's own timeout.
        if self._head_timer is None and self._is_idle and not (self._ignores_input or self.transport.is_closing()):
            self._start_head_timer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the requests that came before the end of the client's bytes, and close the connection after them."""
        if self.cycle is not None and self.cycle.more_body and self.pipeline:
            self._drop_last()
        if self._is_idle or self.cycle.more_body or self.transport.is_closing():
            self.transport.close()  # it sends what was joined
            return False
        self._ignores_input = self._is_half_closed = True
        if self._last_answer is None:
            self.cycle.keep_alive = False
        # On an idle server most answers are ready before the client has to be asked whether it is still there.
        patience = _POLL_SECONDS if len(self.tasks) <= _FEW_REQUESTS else 0
        self._end_timer = self.loop.call_later(patience, self._watch_half_closed, _RESET_SECONDS)
        return True

    def drain(self) -> None:
        """Close the connection after the next answer that has not begun, or after those that it waits for.

        An answer that has begun has told the client that the connection stays open: the next request may be on its way.
        """
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def close_idle(self) -> bool:
        """Close the connection unless a request is on its way, and return whether that was so."""
        if self._poll(select.POLLIN):
            return False
        self.server_state.idle.pop(self, None)
        self.transport.close()
        return True

    def shutdown(self) -> None:
        self.drain()
        self._close_when_quiet()

    def on_message_begin(self) -> None:
        if self._ignores_input:
            raise httptools.HttpParserError("nothing more is read from this connection")
        self._head_bytes = 0
        self._is_head_complete = False
        if self._head_timer is None:
            self._start_head_timer()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + len(": \r\n"))
        if self._is_head_complete:  # a trailer: it must not become a header (RFC 9110, 6.5.1)
            return
        value = value.rstrip(b" \t")  # white space around it is no part of it (RFC 9110, 5.5); llhttp strips the front
        if len(self.headers) == MAX_HEADERS:
            self._is_too_large = True
            raise httptools.HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head_complete = True
        self._chunk_overhead = 0
        self._stop_head_timer()
        self.server_state.idle.pop(self, None)
        self.url = with_path(self.url)
        if refusal := refusal_of(self.headers, self.parser.get_http_version()):
            self._refuse_input(refusal)
            return
        previous = self.cycle
        if self._is_idle and (refusal := self._refusal()):
            self._refuse(refusal)
            return
        if not self._is_idle and self._pipeline_is_full:
            self._ignores_input = True
            self._last_answer = TOO_MANY_PIPELINED
            return
        super().on_headers_complete()
        if self.cycle.scope["http_version"] == "1.0":
            self.cycle.__class__ = UnchunkedCycle  # its task has not started yet
            self.cycle.waiting_for_100_continue = False  # which HTTP/1.0 does not know (RFC 9110, 10.1.1)
        self._previous = previous
        self._count_pipelined()
        if self.server_state.draining:
            if previous is not None and not previous.response_started and not isinstance(previous, UnchunkedCycle):
                previous.keep_alive = True  # this request comes with it
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._bytes_beside_body = 0
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._hand_over_pieces()
        self._bytes_beside_body = self._chunk_overhead = 0
        if not self._ignores_input:
            super().on_message_complete()

    def _hand_over_pieces(self) -> None:
        """Add what has come of a body at once: adding each chunk would copy what waits again and again."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._chunk_overhead -= (1 + _CHUNK_OVERHEAD_PER_BYTE) * len(body)
        if body and not self._ignores_input:
            super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._count_pipelined()
        self._active_at = self.loop.time()
        if self._last_answer is not None and self._is_idle:
            self._finish(self._last_answer)
        elif self._is_idle and not self.transport.is_closing():
            self.server_state.idle[self] = self._active_at

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered on this connection."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _pipeline_is_full(self) -> bool:
        return len(self.pipeline) >= MAX_PIPELINED or self.server_state.pipelined >= MAX_ALL_PIPELINED

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.server_state.max_head_bytes:
            self._is_too_large = True
            raise httptools.HttpParserError("the head is too large")

    def _count_pipelined(self) -> None:
        self.server_state.pipelined += len(self.pipeline) - self._pipelined
        self._pipelined = len(self.pipeline)

    def _refusal(self) -> RawAnswer | None:
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            return None
        path = (url.path or b"").decode("ascii", "replace")
        return self.server_state.admission(self.parser.get_method(), path, url.query or b"")

    def _refuse(self, answer: RawAnswer) -> None:
        """Answer a request by its head: neither the application nor the memory gets its body."""
        self._ignores_input = True
        self.flow.pause_reading()
        self._end_timer = self.loop.call_later(answer.delay, self._finish, answer)

    def _refuse_input(self, answer: RawAnswer = MALFORMED) -> None:
        """Answer what is not HTTP, or too large, after the requests before it."""
        if self._ignores_input or self.transport.is_closing():
            return
        self._stop_head_timer()
        self._ignores_input = True
        answer = TOO_LARGE if self._is_too_large else answer
        if not self._is_idle and self.cycle.more_body:  # the error is in its own body or trailers
            if self.pipeline:
                self._drop_last()
            elif self.cycle.response_started:
                self.transport.close()
                return
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self._finish(answer, is_recorded=True)
                return
        if self._is_idle:
            self._finish(answer)
        else:
            self._last_answer = answer

    def _drop_last(self) -> None:
        """Forget the last request, which waits for others and will never be complete."""
        self.pipeline.popleft()
        self._count_pipelined()
        self.cycle = self._previous  # type: ignore[assignment]

    def _finish(self, answer: RawAnswer, *, is_recorded: bool = False) -> None:
        """Send the last answer, and close once the client has closed or had time to read it.

        Args:
            is_recorded: whether the application records the request.
        """
        if self.transport.is_closing():
            return
        self._ignores_input = True
        headers = self.headers or []
        sent_id = next((value for name, value in headers if name == b"x-request-id"), b"")
        current_id = request_id_for(sent_id.decode("latin-1"))
        allowing = cross_origin_headers(self.server_state.origins, headers)
        self.transport.write(answer.encode([(b"x-request-id", current_id.encode()), *allowing]))
        REJECTED.labels(answer.code).inc()
        if not is_recorded:
            token = request_id.set(current_id)
            record_request(
                answer.route,
                str(answer.status.value),
                self.loop.time() - self._active_at,  # since its last byte
                is_logged=self.server_state.access_log,
                method=answer.method,
                path=answer.path,
                client=self.client and self.client[0],
            )
            request_id.reset(token)  # other connections may share the context
        if self._is_half_closed:
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._end_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _watch_half_closed(self, reset_after: float | None = None) -> None:
        """Disconnect a client that has left, which looks like one that will send nothing more until it is written to.

        A client that left answers the interim response with a reset, which shows without reading.

        Args:
            reset_after: how soon to look for a reset, if the interim response is still to be sent.
        """
        if self._is_idle or self.transport.is_closing():
            return
        if reset_after and self.cycle.scope["http_version"] == "1.1" and not self.cycle.response_started:
            self.transport.write(_CONTINUE)
        elif self._poll(0):
            self.transport.abort()
            return
        self._end_timer = self.loop.call_later(reset_after or _POLL_SECONDS, self._watch_half_closed)

    def _close_when_quiet(self) -> None:
        """Close the connection once it is idle and no request is on its way."""
        if self._ignores_input or self.transport.is_closing():  # otherwise its last answer is being sent
            return
        if not self._is_idle or self.loop.time() < self._active_at + QUIET_SECONDS or self._poll(select.POLLIN):
            self._end_timer = self.loop.call_later(_POLL_SECONDS, self._close_when_quiet)
        else:
            self.transport.close()

    def _poll(self, events: int) -> bool:
        """Return whether the socket has one of the events, or has been reset."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), events)
        return bool(poll.poll(0))

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
