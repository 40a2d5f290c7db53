"""Calls between the supervisor and a worker: lines of JSON over a socket pair."""

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self, TypeAlias, cast

from serving.errors import ChangeRefusedError, InternalError, ServingError
from serving.telemetry.logs import request_id

logger = logging.getLogger(__name__)


Functions: TypeAlias = Mapping[str, Callable[..., Coroutine[Any, Any, Any]]]


class PeerLostError(Exception):
    """The process at the other end has ended."""


class Channel(asyncio.Protocol):
    """One end of a socket pair: calls functions of the other end and answers its calls, on the running event loop.

    Neither end waits for the other to read: a worker that hangs does not hold up its supervisor.

    Args:
        functions: what the other end may call. The other end receives a `ServingError`; other errors are logged here.
        lost: called once when the other end has closed the socket.
    """

    def __init__(self, functions: Functions, lost: Callable[[], None]) -> None:
        self._functions = functions
        self._lost = lost
        self._numbers = itertools.count()
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._line: list[bytes] = []  # the parts of a line whose end has not come
        self._is_closed = False

    @classmethod
    async def open(cls, end: socket.socket, functions: Functions, lost: Callable[[], None]) -> Self:
        """Return a channel over one end of a socket pair, which it closes."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(functions, lost), sock=end)
        return channel

    async def call(self, function: str, *arguments: Any) -> Any:
        """Return the result of a function of the other end.

        Raises:
            ChangeRefusedError: the function raised an error.
            PeerLostError: the other end has closed the socket.
        """
        if self._is_closed:
            raise PeerLostError
        number = next(self._numbers)
        self._replies[number] = asyncio.get_running_loop().create_future()
        self._send("call", number, function, arguments, request_id.get())
        try:
            return await self._replies[number]
        finally:
            del self._replies[number]

    def close(self) -> None:
        """Close this end; calls that wait for a reply raise PeerLostError."""
        if self._is_closed:
            return
        self._is_closed = True
        self._transport.abort()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(PeerLostError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        if not self._is_closed:
            self.close()
            self._lost()

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            message = b"".join((*self._line, line))
            self._line.clear()
            self._receive(message)
        self._line.append(rest)

    def _receive(self, message: bytes) -> None:
        kind, number, *content = json.loads(message)
        if kind == "call":
            task = asyncio.create_task(self._answer(number, *content))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (reply := self._replies.get(number)) is not None and not reply.done():
            if kind == "result":
                reply.set_result(content[0])
            else:
                reply.set_exception(ChangeRefusedError(*content))

    async def _answer(self, number: int, function: str, arguments: list[Any], current_id: str | None) -> None:
        request_id.set(current_id)  # of this task: what the function logs belongs to the caller's request
        try:
            self._send("result", number, await self._functions[function](*arguments))
        except ServingError as error:
            self._send_error(number, error)
        except PeerLostError:  # the caller has ended, and nobody reads the reply
            pass
        except Exception:
            logger.exception("%s%r failed", function, tuple(arguments))
            self._send_error(number, InternalError())

    def _send_error(self, number: int, error: ServingError) -> None:
        self._send("error", number, error.code, str(error))

    def _send(self, *message: Any) -> None:
        if not self._is_closed:
            self._transport.write(json.dumps(message).encode() + b"\n")
