"""Shares the result of a coroutine function among those who ask for it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Calls a function once at a time, however many ask for its result, on one event loop."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._calling = asyncio.Lock()
        self._started = self._finished = 0  # numbers of calls
        self._result: T

    async def get(self) -> T:
        """Return the result of a call that starts from now on: an earlier one may lack what happened since."""
        earlier = self._started
        async with self._calling:
            if self._finished <= earlier:
                self._started += 1
                self._result = await self._function()
                self._finished = self._started
            return self._result
