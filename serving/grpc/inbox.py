"""Receives messages within limits on their bytes and on time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc.aio

from serving.errors import OverloadedError, RequestError
from serving.grpc.calls import host_of
from serving.grpc.messages import parse
from serving.interface.tensors import refusal

Receive: TypeAlias = Callable[[Any, float], Awaitable[bytes | None]]

MAX_SMALL_BYTES = 64 * 2**10


class Inbox:
    """Receives the messages of all calls, on one event loop.

    gRPC tells the size of a message only when all of it has arrived. Room for the largest one is reserved until then,
    and the messages of all calls together never take more than the total. The hosts whose calls wait for room take
    turns. Of a host's calls, the latest is next: those that send nothing cannot keep the others waiting.

    Args:
        max_bytes: of one message, to which the gRPC server limits them.
        total_bytes: of all messages, from their arrival until their calls are answered; at least `max_bytes`.
        timeout: seconds that a message may take to arrive.
        patience: the same while others wait for its room.
    """

    def __init__(self, max_bytes: int, total_bytes: int, timeout: float, patience: float) -> None:
        self.max_bytes = max_bytes
        self._timeout = timeout
        self._patience = patience
        self._free = total_bytes
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}  # by host; the first one is next
        self._arriving: dict[asyncio.Timeout, float] = {}  # since when

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Receive]:
        """Yield a function that receives the next message of a call; its bytes count until the next one or the end.

        The function takes the call's context, as `grpc.aio` makes it, and when to give up waiting for room, on the
        event loop's clock. It returns None after the last message. It raises OverloadedError if there was no room in
        time, and RequestError, `body_timeout`, if the message took too long.
        """
        held = 0

        async def receive(context: Any, deadline: float) -> bytes | None:
            nonlocal held
            self._release(held)
            held = 0
            await self._reserve(host_of(context), deadline)
            held = self.max_bytes
            message = await self._arrival(context)
            size = 0 if message is None else len(message)
            self._release(held - size)
            held = size
            return message

        try:
            yield receive
        finally:
            self._release(held)

    async def receive_small(self, kind: Any, context: Any, deadline: float) -> Any:
        """Return the next message of a call, of a class that holds no images, or None after the last.

        Raises:
            OverloadedError: there was no room in time.
            RequestError: `body_timeout`, or `invalid_request` for another or a larger message.
        """
        async with self.lease() as receive:
            message = await receive(context, deadline)
        if message is None:
            return None
        if len(message) > MAX_SMALL_BYTES:
            raise refusal("the message", f"at most {MAX_SMALL_BYTES} bytes", f"{len(message)} bytes")
        return parse(kind, message)

    async def receive_only(self, kind: Any, context: Any, deadline: float) -> Any:
        """Return the one message of a call, as `receive_small` does.

        Raises:
            OverloadedError: there was no room in time.
            RequestError: as `receive_small` raises it; `body_too_large` if there is no message.
        """
        request = await self.receive_small(kind, context, deadline)
        if request is None:
            raise self.no_message()
        return request

    def no_message(self) -> RequestError:
        """Return the error for a call without a message: gRPC hands over none if it is too large."""
        return RequestError("body_too_large", f"expected a message of at most {self.max_bytes} bytes")

    async def _reserve(self, host: str, deadline: float) -> None:
        """Wait for room for the largest message."""
        if self._free >= self.max_bytes:
            self._free -= self.max_bytes
            return
        self._hurry()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, []).append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except TimeoutError:
            self._give_up(host, turn)
            raise OverloadedError from None
        except asyncio.CancelledError:
            self._give_up(host, turn)
            raise

    def _give_up(self, host: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(host, [])
        if turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[host]
        elif not turn.cancelled():  # it was granted just now
            self._release(self.max_bytes)

    def _release(self, size: int) -> None:
        self._free += size
        while self._waiting and self._free >= self.max_bytes:
            host = next(iter(self._waiting))
            turns = self._waiting.pop(host)
            turn = turns.pop()
            if turns:
                self._waiting[host] = turns  # behind all other hosts
            if not turn.done():  # otherwise it was cancelled
                self._free -= self.max_bytes
                turn.set_result(None)

    def _hurry(self) -> None:
        """Shorten the time of the messages that are arriving: slow clients must not keep others out."""
        now = asyncio.get_running_loop().time()
        for timeout, since in self._arriving.items():
            if not timeout.expired():
                timeout.reschedule(max(now, since + self._patience))

    async def _arrival(self, context: Any) -> bytes | None:
        now = asyncio.get_running_loop().time()
        timeout = asyncio.timeout_at(now + (self._patience if self._waiting else self._timeout))
        self._arriving[timeout] = now
        try:
            async with timeout:
                message = await context.read()
        except TimeoutError:
            raise RequestError("body_timeout", "the message took too long to arrive") from None
        finally:
            del self._arriving[timeout]
        return None if message is grpc.aio.EOF else message
