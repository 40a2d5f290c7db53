"""The deadline of a request."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from serving.errors import DeadlineError

T = TypeVar("T")


async def until(deadline: float | None, work: Awaitable[T]) -> T:
    """Await `work`; raise DeadlineError if it is not done by the deadline, on the event loop's clock; None: never."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as error:
        raise DeadlineError from error
