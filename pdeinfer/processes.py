"""Starts processes safely."""

import os
from multiprocessing.process import BaseProcess


def start_process(process: BaseProcess) -> None:
    """Start a process of the method "spawn" that imports no module from the current folder, which may hold any file."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
