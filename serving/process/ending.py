"""Ends a process in time, whatever its threads do."""

import ctypes
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time

from serving.telemetry.tracing import flush_traces

logger = logging.getLogger(__name__)

# After its deadline a process gets this long to flush its logs and traces; then the kernel ends it.
FLUSH_SECONDS = 0.3


class Ending:
    """A thread that ends the process at a deadline, with exit code 0 and without waiting for other threads.

    Python would wait for the running functions of a thread pool, and these cannot be stopped.
    """

    def __init__(self) -> None:
        # Signal handlers may put into it: unlike locks and events, it allows a handler to interrupt another.
        self._deadlines: queue.SimpleQueue[float] = queue.SimpleQueue()
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def end_within(self, seconds: float) -> None:
        """End the process this many seconds from now, or at an earlier deadline; to be called in the main thread."""
        self._deadlines.put(time.monotonic() + seconds)
        # The kernel needs no thread of this process, which may be unable to run Python.
        former, _ = signal.getitimer(signal.ITIMER_REAL)
        seconds += 2 * FLUSH_SECONDS
        signal.setitimer(signal.ITIMER_REAL, min(former, seconds) if former else seconds)

    def _wait(self) -> None:
        deadline = self._deadlines.get()
        while (left := deadline - time.monotonic()) > 0:
            try:
                deadline = min(deadline, self._deadlines.get(timeout=left))
            except queue.Empty:
                break
        # In a thread, because a log that nobody reads would block, and a collector of traces may not answer.
        flushing = threading.Thread(target=_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)
        os._exit(0)


def _flush() -> None:
    logger.error("work in progress is abandoned: it did not end within --shutdown-timeout")
    flush_traces()


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    pr_set_pdeathsig = 1  # of sys/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it has ended already
        os._exit(1)
