"""Ends a process in time, whatever its threads do."""

import ctypes
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable

from serving.telemetry.tracing import flush_traces

logger = logging.getLogger(__name__)

# After its deadline a process gets this long to flush its logs and traces; then the kernel ends it.
FLUSH_SECONDS = 0.3

# A process whose work has ended in time gets this long to send its last traces.
TRACES_SECONDS = 1.0


class Ending:
    """A thread that ends the process at a deadline, with exit code 0 and without waiting for other threads.

    Python would wait for the running functions of a thread pool, and these cannot be stopped.
    """

    def __init__(self) -> None:
        # Signal handlers may put into it: unlike locks and events, it allows a handler to interrupt another.
        self._deadlines: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._has_finished = False
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def end_within(self, seconds: float) -> None:
        """End the process this many seconds from now, or at an earlier deadline; to be called in the main thread."""
        self._deadlines.put(time.monotonic() + seconds)
        # The kernel needs no thread of this process, which may be unable to run Python.
        former, _ = signal.getitimer(signal.ITIMER_REAL)
        seconds += 2 * FLUSH_SECONDS
        signal.setitimer(signal.ITIMER_REAL, min(former, seconds) if former else seconds)

    def finish(self) -> None:
        """Send the last traces, for a second at most: all work has ended, and the process will too."""
        self._has_finished = True
        if not _runs_within(TRACES_SECONDS, flush_traces):
            logger.warning("the last traces were not sent: their collector did not take them within a second")

    def _wait(self) -> None:
        deadline = self._deadlines.get()
        while (left := deadline - time.monotonic()) > 0:
            try:
                deadline = min(deadline, self._deadlines.get(timeout=left))
            except queue.Empty:
                break
        if self._has_finished:
            time.sleep(FLUSH_SECONDS)  # `finish` sends the last traces
        else:
            _runs_within(FLUSH_SECONDS, _abandon)
        os._exit(0)


def _abandon() -> None:
    logger.error("work in progress is abandoned: it did not end within --shutdown-timeout")
    flush_traces()


def _runs_within(seconds: float, function: Callable[[], object]) -> bool:
    """Run a function in a thread that is left alone after a while; return whether it has ended by then.

    A log that nobody reads blocks, and a collector of traces may not answer.
    """
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    pr_set_pdeathsig = 1  # of sys/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it has ended already
        os._exit(1)
