"""`make bench`: times every way to run the networks, on one and on two threads, and checks the targets."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.networks import NO_PDE, RESNET, pde_preset, smooth_images, write_networks
from benchmarks.routes import FUNCTION, FUSED, PLAIN, ROUTES, missing_package
from benchmarks.targets import BATCH_SIZES, TARGET_MISSED, cases_of_targets, targets
from benchmarks.timing import Timing
from benchmarks.workers import Case, Workers
from pdeinfer import ParityError, PdeinferError
from pdeinfer.checks.parity import compare
from pdeinfer.spec.presets import Preset

THREADS = (1, 2)
WITHOUT_PDE = (RESNET, NO_PDE)
PEERS = ("tf2onnx", "openvino", "torch")
PEER_PACKAGES = ("openvino", "torch")
TARGET_ROUNDS = 41  # on a shared machine, a ratio of two medians of eleven samples is uncertain by a tenth


def main() -> int:
    """Run the benchmark; return the exit code: 0, 1 if outputs differ, 2 for other errors, or TARGET_MISSED."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="K = 1 and 5, without OpenVINO and PyTorch, fewer rounds")
    parser.add_argument("--rounds", type=int, help="samples of each time (default: 11, or 7 with --quick)")
    arguments = parser.parse_args()
    presets = [*WITHOUT_PDE, *map(pde_preset, (1, 5) if arguments.quick else (1, 5, 10))]
    routes = [route for route in ROUTES if not (arguments.quick and ROUTES[route].package in PEER_PACKAGES)]
    print(machine(*PEERS))
    for route in [route for route in routes if missing_package(route)]:
        print(f"Left out: {route}, since {missing_package(route)} is not installed.\n", flush=True)
        routes.remove(route)
    try:
        timings, of_targets = measure(presets, routes, arguments.rounds or (7 if arguments.quick else 11))
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    print_times(timings, presets, routes)
    return print_targets(of_targets)


def measure(
    presets: Sequence[Preset], routes: Sequence[str], rounds: int
) -> tuple[dict[Case, Timing], dict[Case, Timing]]:
    """Check that all outputs are equal; return the timing of every case, and a second one of those with targets.

    Raises:
        ParityError: the outputs differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders = write_networks(presets, Path(folder))
        with Workers(folders, routes, THREADS, BATCH_SIZES) as workers:
            names = [preset.name for preset in presets]
            cases = [Case(*case) for case in _product(names, routes)]
            _require_equal(workers, cases)
            timings = _time(workers, cases, rounds)
            return timings, _time(workers, cases_of_targets(timings), TARGET_ROUNDS)


def _time(workers: Workers, cases: Sequence[Case], rounds: int) -> dict[Case, Timing]:
    timings: dict[Case, Timing] = {}
    for size in BATCH_SIZES:
        sized = [case for case in cases if case.batch_size == size]
        timings |= workers.time_in_turns(sized, rounds, sample_seconds=0.02)
    return timings


def _product(names: Sequence[str], routes: Sequence[str]) -> list[Case]:
    return [
        Case(name, route, threads, size)
        for name in names
        for route in routes
        if route != FUNCTION or name not in [preset.name for preset in WITHOUT_PDE]  # for these it equals FUSED
        for threads in THREADS
        for size in BATCH_SIZES
    ]


def _require_equal(workers: Workers, cases: Sequence[Case]) -> None:
    """Raise ParityError unless every case gives the probabilities of tf2onnx's file in ONNX Runtime."""
    images = smooth_images(32, 32, 3, max(BATCH_SIZES))
    for case in cases:
        reference = case._replace(route=PLAIN, threads=1)
        report = compare(
            (PLAIN, lambda batch, case=reference: workers.classify(case, batch)),
            (case.route, lambda batch, case=case: workers.classify(case, batch)),
            {f"smooth noise, {case.network}": images[: max(4, case.batch_size)]},
            batch_sizes=(case.batch_size,),
        )
        if not report.passed:
            raise ParityError(f"the routes differ:\n{report}")


def print_times(timings: Mapping[Case, Timing], presets: Sequence[Preset], routes: Sequence[str]) -> None:
    """Print two tables per number of threads and batch size: the times, and their ratios."""
    names = [preset.name for preset in presets]
    plain_names = [preset.name for preset in presets if preset in WITHOUT_PDE]
    pdes = [name for name in names if name not in plain_names]
    for threads in THREADS:
        for size in BATCH_SIZES:
            print(f"### Batch {size}, {'one thread' if threads == 1 else f'{threads} threads'}\n")
            print("Milliseconds per batch, median (quartiles):\n")
            rows, ratios = [], []
            for route in routes:
                cases = {name: Case(name, route, threads, size) for name in names}
                rows.append(
                    [route, *(milliseconds(timings[case]) if case in timings else "" for case in cases.values())]
                )
                ours = [timings[cases[name]].median for name in pdes]
                ratios.append([route])
                for name in plain_names:
                    other = timings.get(cases[name]) or timings[cases[name]._replace(route=FUSED)]
                    ratios[-1] += [f"{other.median / median:.2f}" for median in ours]
                plain = [timings[cases[name]._replace(route=PLAIN)].median for name in pdes]
                ratios[-1] += [f"{slow / median:.2f}" for slow, median in zip(plain, ours, strict=True)]
            print(table(["route", *names], rows))
            print("Speed relative to other networks on the same route, and to tf2onnx in ONNX Runtime:\n")
            header = [f"{name} x {than}" for than in (*plain_names, "tf2onnx") for name in pdes]
            print(table(["route", *header], ratios), flush=True)


def print_targets(timings: Mapping[Case, Timing]) -> int:
    """Print which targets are met; return the exit code, 0 or TARGET_MISSED."""
    found = targets(timings)
    print(f"### Targets\n\nMeasured again on their own, in {TARGET_ROUNDS} turns each:\n")
    rows = [
        [
            target.name,
            f"{target.required:.2f}",
            f"{target.measured or 0:.2f}" if target.measured else "-",
            target.verdict,
        ]
        for target in found
    ]
    print(table(["ratio of medians", "at least", "measured", ""], rows))
    return TARGET_MISSED if any(target.verdict == "NOT MET" for target in found) else 0


if __name__ == "__main__":
    sys.exit(main())
