"""A bound on the memory of decoding: how many pixels are decoded at a time."""

import asyncio
from collections import deque


class PixelBudget:
    """A semaphore that counts pixels; who asks first is served first. It belongs to one event loop.

    Args:
        total: the most pixels at a time.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, pixels: int) -> None:
        """Wait until there is room for so many, at most the total; `release` gives it back."""
        if not self._waiting and pixels <= self._free:
            self._free -= pixels
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            has_room = turn.done() and not turn.cancelled()  # it was this one's turn, just now
            self.release(pixels if has_room else 0)  # if not, those behind it may fit
            raise

    def release(self, pixels: int) -> None:
        self._free += pixels
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            pixels, turn = self._waiting.popleft()
            if not turn.done():  # else nobody waits any more
                self._free -= pixels
                turn.set_result(None)
