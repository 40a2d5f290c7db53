"""Runs each route in a process of its own, and lets the processes take turns."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from benchmarks.networks import IMAGES_FILE
from benchmarks.routes import ROUTES
from benchmarks.timing import Timing, calls_in, seconds_of, timing_of
from pdeinfer.arrays import Array
from pdeinfer.checks.parity import Classify
from pdeinfer.spec.presets import Preset


class Case(NamedTuple):
    """What is timed: a network (a preset's name), a route, a number of threads and a batch size."""

    network: str
    route: str
    threads: int
    batch_size: int


class Workers:
    """One process per route and number of threads, each with every network loaded.

    Frameworks take their number of threads once per process.

    Args:
        folders: of the networks, by preset.
        routes: names of `ROUTES`.
        threads: numbers of threads.
        batch_sizes: the sizes to compile for before timing.
    """

    def __init__(
        self,
        folders: Mapping[Preset, Path],
        routes: Sequence[str],
        threads: Sequence[int] = (1,),
        batch_sizes: Sequence[int] = (1,),
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._executors = {
            (route, number): ProcessPoolExecutor(1, context, _open, (dict(folders), route, number, batch_sizes))
            for route in routes
            for number in threads
        }
        for future in [executor.submit(_wait_until_open) for executor in self._executors.values()]:  # all start at once
            future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for executor in self._executors.values():
            executor.shutdown(cancel_futures=True)

    def classify(self, case: Case, images: Array) -> Array:
        """Return the probabilities of images, by a case's route."""
        return self._call(case, _classify, case.network, images)

    def time_in_turns(self, cases: Sequence[Case], rounds: int, sample_seconds: float) -> dict[Case, Timing]:
        """Return the timing of each case, as `timing.time_in_turns` does."""
        calls = {case: self._call(case, _calls_in, sample_seconds, case.network, case.batch_size) for case in cases}
        samples: dict[Case, list[float]] = {case: [] for case in cases}
        for turn in range(rounds):
            first = turn % len(cases)
            for case in (*cases[first:], *cases[:first]):
                samples[case].append(self._call(case, _sample, case.network, case.batch_size, calls[case]))
        return {case: timing_of(values) for case, values in samples.items()}

    def _call(self, case: Case, function: Any, *args: Any) -> Any:
        return self._executors[case.route, case.threads].submit(function, *args).result()


# In a worker's process: its networks and their images, by the presets' names.
_networks: dict[str, Classify] = {}
_images: dict[str, Array] = {}


def _open(folders: Mapping[Preset, Path], route: str, threads: int, batch_sizes: Sequence[int]) -> None:
    for preset, folder in folders.items():
        _networks[preset.name] = ROUTES[route].open(preset, folder, threads)
        _images[preset.name] = np.load(folder / IMAGES_FILE)
        for batch_size in batch_sizes:  # some routes compile for each size
            _classify(preset.name, _images[preset.name][:batch_size])


def _wait_until_open() -> None:
    """Do nothing: the executor calls `_open` first."""


def _classify(network: str, images: Array) -> Array:
    return _networks[network](images)


def _calls_in(seconds: float, network: str, batch_size: int) -> int:
    images = _images[network][:batch_size]
    return calls_in(seconds, lambda: _networks[network](images))


def _sample(network: str, batch_size: int, calls: int) -> float:
    images = _images[network][:batch_size]
    _networks[network](images)  # refills the caches after the turn of another process
    return seconds_of(lambda: _networks[network](images), calls) / calls
