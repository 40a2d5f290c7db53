"""Times functions in turns: other work on the machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call: median and quartiles over the rounds."""

    median: float
    lower_quartile: float
    upper_quartile: float


def time_in_turns(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 25, sample_seconds: float = 0.02
) -> dict[str, Timing]:
    """Return the timing of each function, by name.

    In every round each function has one turn, in an order that rotates from round to round. A turn takes as many calls
    as last about `sample_seconds`. Each function is warmed up first.

    Args:
        functions: by name.
        rounds: samples of each function, at least two.
    """
    calls = {name: calls_in(sample_seconds, function) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(seconds_of(functions[name], calls[name]) / calls[name])
    return {name: timing_of(values) for name, values in samples.items()}


def calls_in(seconds: float, function: Callable[[], object]) -> int:
    """Warm a function up; return how many calls of it last about `seconds`, at least one."""
    seconds_of(function, 3)
    calls = 1
    while (elapsed := seconds_of(function, calls)) < seconds / 2:
        calls *= 2
    return max(1, round(calls * seconds / elapsed))


def seconds_of(function: Callable[[], object], calls: int) -> float:
    """Return the seconds that `calls` calls of a function take together."""
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - started


def timing_of(values: Sequence[float]) -> Timing:
    """Return the median and the quartiles of at least two samples."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, lower, upper)
