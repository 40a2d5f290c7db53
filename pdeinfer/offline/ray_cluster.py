"""The engine on a Ray cluster: a pool of Ray Data's actors, each with a Predictor, reads and classifies chunks."""

import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pdeinfer.errors import ClassifyError, MissingDependencyError, PdeinferError
from pdeinfer.offline.classifier import ChunkClassifier, Options
from pdeinfer.offline.parts import Todo, read_chunk
from pdeinfer.text import one_line

_TASK_CHUNKS = 4  # of one call of an actor, which costs some milliseconds
# A cluster notices within half a minute that a node is lost. Until then, new actors may be started there.
_MOST_FAILURES = 6
_PAUSE_SECONDS = 10.0


def classify(plan: Path, todo: Iterable[Todo], options: Options, workers: int | None) -> Iterator[tuple[Todo, bytes]]:
    """Yield the chunks with their rows, in the order in which they are done.

    A node that is lost takes its actors with it. The others go on, and what was lost is classified again at the end, by
    a new pool on the nodes that are there then.

    Args:
        plan: lists the chunks. It and all files that it lists have the same paths on every node; relative ones begin at
            the current folder.
        workers: the number of actors, each with one CPU; None: one for each CPU of the cluster.

    Raises:
        MissingDependencyError: Ray is missing.
        ClassifyError: an actor cannot load the model, a file of images has changed, or the cluster fails.
    """
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError as error:
        raise MissingDependencyError("ray[data]", "ray", "--engine ray") from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ValueError, RuntimeError, ConnectionError) as error:  # such as a malformed RAY_ADDRESS
            raise ClassifyError(f"Ray does not start, or RAY_ADDRESS names no cluster: {one_line(error)}") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs a traceback for every task of a lost node
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # no limit
    remaining = {chunk.number: chunk for chunk in todo}
    failures, problem = 0, "its actors were lost"
    while remaining:
        count = len(remaining)
        try:
            for row in _start(plan.resolve(), list(remaining.values()), options, workers).iter_rows():
                if row["problem"]:
                    raise ClassifyError(row["problem"])
                if chunk := remaining.pop(row["number"], None):
                    yield chunk, row["rows"]
        except RayError as error:
            problem = str(error).partition("\n")[0]
        failures = failures + 1 if len(remaining) == count else 0
        if failures == _MOST_FAILURES:
            raise ClassifyError(f"the Ray cluster classifies no more images: {problem}")
        if failures:
            time.sleep(_PAUSE_SECONDS)


def _start(plan: Path, todo: list[Todo], options: Options, workers: int | None) -> Any:
    """Return the dataset of the rows of chunks, which an actor pool makes while it is read."""
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    items = [{"number": chunk.number, "offset": chunk.offset} for chunk in todo]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_restarts is deprecated without a successor
        return ray.data.from_items(items, override_num_blocks=-(-len(items) // _TASK_CHUNKS)).map_batches(
            _Actor,
            fn_constructor_args=(plan, options, Path.cwd()),
            compute=ray.data.ActorPoolStrategy(size=min(workers or cpus, cpus)),
            batch_size=None,
            num_cpus=1,
            max_restarts=0,  # a restarted actor would wait, with its tasks, for the CPUs of the lost node
        )


class _Actor:
    """Classifies chunks in a process of the cluster."""

    def __init__(self, plan: Path, options: Options, folder: Path) -> None:
        self._plan = plan
        self._options = options
        self._folder = folder  # of relative paths; Ray starts its processes in another
        self._is_in_folder = False
        self._classifier: ChunkClassifier | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the rows of each chunk, or the problem in the way of all, which is not worth a retry."""
        rows, problem = [b""] * len(batch["offset"]), ""
        try:
            rows = [self._classify(int(offset)) for offset in batch["offset"]]
        except (PdeinferError, OSError) as error:
            problem = str(error)
        return {"number": batch["number"], "rows": rows, "problem": [problem] * len(rows)}

    def _classify(self, offset: int) -> bytes:
        if self._classifier is None:
            with suppress(OSError):  # absolute paths need no such folder
                os.chdir(self._folder)
                self._is_in_folder = True
            self._classifier = ChunkClassifier(self._options)
        chunk = read_chunk(self._plan, offset)
        relative = next((name for name in chunk.names() if not os.path.isabs(name)), None)  # noqa: PTH117
        if relative is not None and not self._is_in_folder:
            raise ClassifyError(
                f"{relative}: expected the folder {self._folder} on every node: name the sources by absolute paths"
            )
        return self._classifier.classify(chunk)
