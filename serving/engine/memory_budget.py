"""Limits the memory that images take while they are decoded."""

import asyncio
from collections import deque


class MemoryBudget:
    """A semaphore that counts bytes and serves requests in the order they come; it belongs to one event loop.

    Args:
        total: the most bytes in use at a time.
    """

    def __init__(self, total: int) -> None:
        self.total = self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes, at most the total, are free; `release` gives them back."""
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            was_granted = turn.done() and not turn.cancelled()  # just now
            self.release(size if was_granted else 0)  # without it, those behind may fit
            raise

    def release(self, size: int) -> None:
        """Give back `size` bytes that `acquire` granted."""
        self._free += size
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            size, turn = self._waiting.popleft()
            if not turn.done():  # otherwise it was cancelled
                self._free -= size
                turn.set_result(None)
