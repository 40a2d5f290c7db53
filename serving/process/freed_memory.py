"""Returns memory that a process has freed to the system; glibc would keep hundreds of megabytes after an attack."""

import ctypes
from collections.abc import Callable

_M_MMAP_THRESHOLD = -3  # of malloc.h: allocations of at least this size are mapped, and unmapped when freed


def configure() -> Callable[[], object]:
    """Let large allocations be unmapped when they are freed; return a function that returns the small ones."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # in musl
        return lambda: None
    libc.mallopt(_M_MMAP_THRESHOLD, 2**20)
    trim: Callable[[int], int] = libc.malloc_trim
    return lambda: trim(0)
