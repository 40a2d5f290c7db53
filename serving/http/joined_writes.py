"""Joins the writes of an answer into one system call."""

import asyncio


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

    def write_eof(self) -> None:
        self._send()
        if not self._transport.is_closing():
            self._transport.write_eof()

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
