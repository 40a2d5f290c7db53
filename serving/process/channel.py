"""Calls between the supervisor and a worker: JSON over a pipe."""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from serving.errors import ChangeRefusedError, ServingError

logger = logging.getLogger(__name__)


Functions: TypeAlias = Mapping[str, Callable[..., Coroutine[Any, Any, Any]]]


class PeerLostError(Exception):
    """The process at the other end has ended."""


class Channel:
    """One end of a pipe: calls functions of the other end and answers its calls, on the running event loop.

    Args:
        pipe: this end.
        functions: what the other end may call. The other end receives a `ServingError`; other errors are logged here.
        lost: called once when the other end has closed the pipe.
    """

    def __init__(self, pipe: Connection, functions: Functions, lost: Callable[[], None]) -> None:
        self._pipe = pipe
        self._functions = functions
        self._lost = lost
        self._numbers = itertools.count()
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._read)

    async def call(self, function: str, *arguments: Any) -> Any:
        """Return the result of a function of the other end.

        Raises:
            ChangeRefusedError: the function raised an error.
            PeerLostError: the other end has closed the pipe.
        """
        if self._pipe.closed:
            raise PeerLostError
        number = next(self._numbers)
        self._replies[number] = asyncio.get_running_loop().create_future()
        self._send("call", number, function, arguments)
        try:
            return await self._replies[number]
        finally:
            del self._replies[number]

    def close(self) -> None:
        """Close this end; calls that wait for a reply raise PeerLostError."""
        if self._pipe.closed:
            return
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(PeerLostError())

    def _read(self) -> None:
        try:
            kind, number, *content = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self.close()
            self._lost()
            return
        if kind == "call":
            task = asyncio.create_task(self._answer(number, *content))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (reply := self._replies.get(number)) is not None and not reply.done():
            if kind == "result":
                reply.set_result(content[0])
            else:
                reply.set_exception(ChangeRefusedError(*content))

    async def _answer(self, number: int, function: str, arguments: list[Any]) -> None:
        try:
            self._send("result", number, await self._functions[function](*arguments))
        except ServingError as error:
            self._send("error", number, error.code, str(error))
        except PeerLostError:  # the caller has ended, and nobody reads the reply
            pass
        except Exception:
            logger.exception("%s%r failed", function, tuple(arguments))
            self._send("error", number, "internal_error", "the server failed to answer; its log has the details")

    def _send(self, *message: Any) -> None:
        with suppress(OSError):  # the other end has closed, as `_read` will notice
            self._pipe.send_bytes(json.dumps(message).encode())
