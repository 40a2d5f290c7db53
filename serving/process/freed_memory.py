"""Returns memory that a process has freed to the system; glibc would keep hundreds of megabytes after an attack."""

import ctypes

_M_MMAP_THRESHOLD = -3  # of malloc.h: allocations of at least this size are mapped, and unmapped when freed

_libc = ctypes.CDLL(None)
_is_glibc = hasattr(_libc, "mallopt")  # musl has neither function


def unmap_large() -> None:
    """Let large allocations be unmapped when they are freed."""
    if _is_glibc:
        _libc.mallopt(_M_MMAP_THRESHOLD, 2**20)


def trim() -> None:
    """Return to the system what small allocations have freed."""
    if _is_glibc:
        _libc.malloc_trim(0)
