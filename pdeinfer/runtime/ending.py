"""Lets no thread be inside ONNX Runtime when the interpreter ends.

A daemon thread that returns from ONNX Runtime after that aborts the process, before Python 3.14.
"""

import atexit
import os
import threading
import time
from contextlib import ContextDecorator

_MOST_SECONDS = 5.0
_running: set[int] = set()  # threads; adding and removing one takes no lock, which a forked child could inherit locked
_is_ending = threading.Event()


class RunGuard(ContextDecorator):
    """The context of a run, or of opening a session. Once the program ends, it holds its thread, which ends with it.

    The main thread passes: it is in no run when it ends the program. So an exception of a signal's handler, which only
    the main thread raises, cannot come between a thread's mark and the removal of it.
    """

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            return
        _running.add(threading.get_ident())
        if _is_ending.is_set():
            _running.discard(threading.get_ident())
            threading.Event().wait()

    def __exit__(self, *_: object) -> None:
        _running.discard(threading.get_ident())


def _wait_for_runs() -> None:
    _is_ending.set()
    end = time.monotonic() + _MOST_SECONDS
    while _running and time.monotonic() < end:
        time.sleep(0.005)


class _Handlers:
    """Waits for runs after the last of `atexit`'s handlers.

    Those that were registered before this one run after it, and may wait for threads that still predict. No handler can
    be made the last one, but Python drops them all together when all have run, and this object with its own.
    """

    def __init__(self) -> None:
        self._have_begun = False

    def begin(self) -> None:
        self._have_begun = True

    def __del__(self) -> None:
        if self._have_begun:  # otherwise they were only cleared, as in a child of multiprocessing
            _wait_for_runs()


atexit.register(_Handlers().begin)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_running.clear)  # its other threads are not there
