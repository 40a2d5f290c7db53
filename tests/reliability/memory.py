"""The memory of a server: of its processes, and of those that decode its images."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_SECONDS = 0.05


def tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def megabytes(root: int) -> int:
    """Return the resident memory of a process and its descendants; pages that they share count in each."""
    total = 0
    for process in tree(root):
        try:
            total += int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0])
        except (OSError, IndexError):  # it has just ended
            continue
    return total // 1024


class Peak:
    """The most memory that a server has had.

    Attributes:
        megabytes: so far.
    """

    def __init__(self) -> None:
        self.megabytes = 0


@contextmanager
def watched(root: int) -> Iterator[Peak]:
    """Sample the memory of a process and its descendants until the context ends."""
    peak, is_over = Peak(), threading.Event()

    def watch() -> None:
        while not is_over.wait(EVERY_SECONDS):
            peak.megabytes = max(peak.megabytes, megabytes(root))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def wait_until_below(root: int, limit: int, seconds: float) -> int:
    """Wait until a process and its descendants have less memory than the limit, and return what they have then."""
    end = time.monotonic() + seconds
    while (now := megabytes(root)) >= limit and time.monotonic() < end:
        time.sleep(0.1)
    return now
