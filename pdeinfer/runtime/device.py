"""The names of devices."""

import re

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


def is_device(name: str) -> bool:
    """Return whether a name is "auto", "cpu", "cuda" or "cuda:N"; the device need not exist."""
    return _DEVICE.fullmatch(name) is not None
