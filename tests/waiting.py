"""Wait for what threads, processes and tasks do, as long as a busy machine takes."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60  # seconds


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until the condition is true; fail once the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it has not happened within {seconds} s"
        time.sleep(0.01)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition is true, while the event loop goes on."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
