"""The engine on this machine: processes, each with a Predictor, that read, decode and classify chunks.

Threads would share the interpreter's lock: decoding small images is mostly Python.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from pdeinfer.errors import ClassifyError, PdeinferError
from pdeinfer.offline.classifier import ChunkClassifier, Options
from pdeinfer.offline.parts import Todo, read_chunk
from pdeinfer.processes import deaf_to_ctrl_c, safe_path
from pdeinfer.runtime.cpus import available_cpus

_AHEAD = 2  # chunks of a process: one that it works on, and the next
_ENDING_SECONDS = 5.0
_LESS_MEMORY = "use fewer --workers or a smaller --batch-size; if an image is to blame, --isolate"


def classify(plan: Path, todo: Iterable[Todo], options: Options, workers: int | None) -> Iterator[tuple[Todo, bytes]]:
    """Yield the chunks with their rows, in the order in which they are done.

    Args:
        plan: lists the chunks.
        workers: the number of processes, at most one for each chunk; None: one for each CPU.

    Raises:
        ClassifyError: a process ended, or a file of images has changed.
        PdeinferError, OSError: as a `ChunkClassifier` raises them.
    """
    remaining = iter(todo)
    first = list(islice(remaining, workers or available_cpus()))
    remaining = chain(first, remaining)
    pending: dict[Connection, list[Todo]] = {}
    processes: dict[Connection, BaseProcess] = {}
    context = multiprocessing.get_context("spawn")
    if sys.platform != "win32":
        with safe_path():
            resource_tracker.ensure_running()  # or the first `start` does, and unblocks Ctrl-C
    try:
        for _ in first:
            connection, other_end = context.Pipe()
            process = context.Process(target=_work, args=(other_end, plan, options), daemon=True)
            with safe_path(), deaf_to_ctrl_c():
                process.start()
            other_end.close()  # the other end is closed when the process ends
            processes[connection], pending[connection] = process, []
        for connection in [*processes] * _AHEAD:
            _send_next(connection, remaining, pending[connection])
        while busy := [connection for connection, chunks in pending.items() if chunks]:
            ready = wait(busy)
            for connection in [connection for connection in busy if connection in ready]:
                rows = _receive(connection, processes[connection])
                done = pending[connection].pop(0)
                _send_next(connection, remaining, pending[connection])
                yield done, rows
    finally:
        _end(processes)


def _send_next(connection: Connection, remaining: Iterator[Todo], pending: list[Todo]) -> None:
    for chunk in islice(remaining, 1):
        pending.append(chunk)
        with suppress(BrokenPipeError):  # `_receive` reports it
            connection.send(chunk.offset)


def _receive(connection: Connection, process: BaseProcess) -> bytes:
    try:
        answer: bytes | Exception = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        process.join(_ENDING_SECONDS)
        code = process.exitcode or 0
        end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise ClassifyError(
            f"a process was ended {end}: run the command again to go on. If it is out of memory, {_LESS_MEMORY}"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _work(connection: Connection, plan: Path, options: Options) -> None:
    """Classify the chunks that the other process names, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process gets it as well
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            classifier = ChunkClassifier(options)
            while True:
                chunk = read_chunk(plan, connection.recv())
                connection.send(classifier.classify(chunk))
        except (PdeinferError, OSError) as error:
            connection.send(error)
        except MemoryError:
            connection.send(ClassifyError(f"a process is out of memory: {_LESS_MEMORY}"))


def _end(processes: dict[Connection, BaseProcess]) -> None:
    for connection, process in processes.items():
        connection.close()
        process.terminate()
    for process in processes.values():
        process.join(_ENDING_SECONDS)
