"""The pace of refusals: clients that try again at once would otherwise keep the server busy with refusing them."""

import asyncio

REFUSALS_PER_SECOND = 300  # beyond this rate a refusal waits for its turn
MAX_DELAY = 1.0
_BURST_SECONDS = 0.1  # this many seconds' worth of refusals may come at once


class Pace:
    """Tells each refusal how long to wait."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def delay(self) -> float:
        """Return the seconds until the next refusal: 0 below REFUSALS_PER_SECOND, and about MAX_DELAY at most."""
        now = asyncio.get_running_loop().time()
        self._next_at = max(self._next_at, now - _BURST_SECONDS)
        if self._next_at < now + MAX_DELAY:
            self._next_at += 1 / REFUSALS_PER_SECOND
        return max(self._next_at - now, 0)
