"""Lets no run of a network be in progress when the interpreter ends.

A daemon thread that returns from ONNX Runtime after that aborts the process, before Python 3.14.
"""

import atexit
import os
import threading
import time

_MOST_SECONDS = 5.0
_running: set[int] = set()  # threads; adding and removing one takes no lock, which a forked child could inherit locked
_is_ending = threading.Event()


class Run:
    """The context of a run. Once the program ends, it holds other threads than the main one: they end with it."""

    def __enter__(self) -> None:
        _running.add(threading.get_ident())
        if _is_ending.is_set() and threading.current_thread() is not threading.main_thread():
            _running.discard(threading.get_ident())
            threading.Event().wait()

    def __exit__(self, *_: object) -> None:
        _running.discard(threading.get_ident())


def _wait_for_runs() -> None:
    _is_ending.set()
    end = time.monotonic() + _MOST_SECONDS
    while _running and time.monotonic() < end:
        time.sleep(0.005)


atexit.register(_wait_for_runs)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_running.clear)  # its other threads are not there
