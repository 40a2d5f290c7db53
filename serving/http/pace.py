"""Spreads refusals over time, for clients that try again at once."""

import asyncio

# Clients that try again at once would otherwise keep the server busy with refusals. Faster ones are refused later.
REFUSALS_PER_SECOND = 300
MAX_DELAY = 1.0
_BURST_SECONDS = 0.1


class Pace:
    """Spreads refusals over time."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def delay(self) -> float:
        """Return how many seconds the next refusal waits: none up to REFUSALS_PER_SECOND, and at most MAX_DELAY."""
        now = asyncio.get_running_loop().time()
        self._next_at = max(self._next_at, now - _BURST_SECONDS)
        if self._next_at < now + MAX_DELAY:
            self._next_at += 1 / REFUSALS_PER_SECOND
        return max(self._next_at - now, 0)
