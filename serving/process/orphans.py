"""Reaps the processes that a worker which has died leaves behind, as the first process of a container must."""

import multiprocessing
import os

_FIRST_PROCESS = 1  # which the kernel makes the parent of every orphan


def reap_orphans() -> None:
    """Reap ended processes that this process has not started: they would stay in the table of processes for ever."""
    if os.getpid() != _FIRST_PROCESS:
        return
    own = {child.pid for child in multiprocessing.active_children()}  # it reaps those that have ended itself
    while (pid := _ended_child()) is not None and pid not in own:
        os.waitpid(pid, 0)


def _ended_child() -> int | None:
    """Return the number of an ended child without reaping it."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there is none at all
        return None
    return None if ended is None else ended.si_pid
