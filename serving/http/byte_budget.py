"""Limits the bytes of all request bodies that a worker holds at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from serving.errors import OverloadedError

Hold: TypeAlias = Callable[[int], None]


class ByteBudget:
    """Counts the bytes of request bodies that the server holds at a time.

    Args:
        total: the most bytes.

    Attributes:
        held: the bytes now.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.held = 0

    @contextmanager
    def lease(self) -> Iterator[Hold]:
        """Yield a function that counts further bytes, until the context ends.

        It raises OverloadedError once there are more than the total, and then counts none of this request's bytes: they
        are forgotten before the refusal is sent.
        """
        leased = 0

        def hold(size: int) -> None:
            nonlocal leased
            leased += size
            self.held += size
            if self.held > self._total:
                self.held -= leased
                leased = 0
                raise OverloadedError

        try:
            yield hold
        finally:
            self.held -= leased
