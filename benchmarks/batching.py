"""Measures how a Predictor should divide many images: the size of its runs, and their threads."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.markdown import machine, table
from benchmarks.networks import FUSABLE_FILE, IMAGES_FILE, RESNET, pde_preset, write_networks
from benchmarks.timing import time_in_turns
from pdeinfer.runtime.session import Session, create_session

COUNT = 256
CHUNKS = (1, 4, 8, 16, 32, 64, 256)
ONE_THREAD = "one thread"
IN_RUN = "two threads in each run"
IN_PARALLEL = "two runs at a time, of one thread each"


def main() -> int:
    """Run the benchmark, and return the exit code."""
    print(machine())
    presets = (pde_preset(1), pde_preset(5), RESNET)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as executor:
        for preset, path in write_networks(presets, Path(folder), COUNT).items():
            model, images = (path / FUSABLE_FILE).read_bytes(), np.load(path / IMAGES_FILE)
            one, two = (create_session(model, "cpu", threads) for threads in (1, 2))
            functions: dict[str, Callable[[], object]] = {}
            for size in CHUNKS:
                functions[f"{ONE_THREAD} {size}"] = partial(_in_sequence, one, images, size)
                functions[f"{IN_RUN} {size}"] = partial(_in_sequence, two, images, size)
                functions[f"{IN_PARALLEL} {size}"] = partial(_in_parallel, executor, one, images, size)
            timings = time_in_turns(functions, rounds=9, sample_seconds=0)
            print(f"### {preset.name}\n\nImages per second, by images per run:\n")
            rows = [
                [way, *(f"{COUNT / timings[f'{way} {size}'].median:,.0f}" for size in CHUNKS)]
                for way in (ONE_THREAD, IN_RUN, IN_PARALLEL)
            ]
            print(table([f"{COUNT} images", *map(str, CHUNKS)], rows), flush=True)
    return 0


def _chunks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _run(session: Session, images: np.ndarray) -> np.ndarray:
    return session.run("probabilities", {"image": images})


def _in_sequence(session: Session, images: np.ndarray, size: int) -> None:
    for chunk in _chunks(images, size):
        _run(session, chunk)


def _in_parallel(executor: ThreadPoolExecutor, session: Session, images: np.ndarray, size: int) -> None:
    for _ in executor.map(partial(_run, session), _chunks(images, size)):
        pass


if __name__ == "__main__":
    sys.exit(main())
