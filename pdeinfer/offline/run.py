"""Classifies the images of many sources into one file, and goes on where an earlier run was stopped."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from pdeinfer.images.files import LeftOut
from pdeinfer.offline.classifier import Options
from pdeinfer.offline.parts import Parts, already_exists
from pdeinfer.offline.results import Count, check_format, write_rows
from pdeinfer.offline.sources import list_chunks
from pdeinfer.version import __version__

Engine: TypeAlias = Literal["local", "ray"]

_ENGINES: dict[Engine, str] = {"local": "pdeinfer.offline.local", "ray": "pdeinfer.offline.ray_cluster"}
_FREE = ("batch_size", "device")  # options that may differ when a run is resumed: the rows are the same


def classify(
    sources: Sequence[str],
    result: Path,
    options: Options,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    leave_out: Callable[[LeftOut], None] = lambda _: None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Count:
    """Write a row for each image to a file. If this is stopped, the same call goes on.

    Args:
        sources: as `pdeinfer.offline.sources.list_chunks` takes them.
        result: the file; its suffix, .parquet, .csv or .jsonl, names the format.
        engine: "local" for processes on this machine, "ray" for a Ray cluster.
        workers: the number of processes or actors; by default, one for each CPU.
        leave_out: is told what is found in folders or fits a pattern, and is left out.
        report: is told how many images have been classified, and how many there are.

    Returns:
        The number of rows and of errors.

    Raises:
        ClassifyError: the result exists, the sources hold no image, or what an earlier run began does not fit.
        PdeinferError: the model, the device or a dependency cannot be used.
        OSError: the system failed, e.g. with a full disk; what was done is kept.
    """
    check_format(result)
    parts = Parts(result)
    if result.exists() and not parts.is_begun:
        raise already_exists(result)
    run = importlib.import_module(_ENGINES[engine]).classify
    sources = [source for source in sources if not parts.holds(Path(source))]  # a shell's pattern names them
    fixed = {name: value for name, value in asdict(options).items() if name not in _FREE}
    job = {"pdeinfer": __version__, "sources": sources, **fixed}
    with parts:
        if result.exists():
            count = parts.take_finished(job)
            report(count.rows, count.rows)
            return count
        parts.check_job(job)
        parts.make_plan(list_chunks(sources, leave_out, parts.holds))
        done = parts.done
        report(done, parts.images)
        with closing(run(parts.plan, parts.todo(), options, workers)) as classified:
            for chunk, rows in classified:
                parts.write(chunk.number, rows)
                done += chunk.images
                report(done, parts.images)
        return parts.finish(partial(write_rows, parts.read(), suffix=result.suffix))
