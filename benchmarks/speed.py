"""`make bench`: times every way to run the networks, on one and on two threads, and checks the targets."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import processor
from benchmarks.markdown import machine, milliseconds, table
from benchmarks.networks import NO_PDE, RESNET, pde_preset, smooth_images, write_int8, write_networks
from benchmarks.routes import FLOAT32, FUNCTION, FUSED, PLAIN, ROUTES, why_left_out
from benchmarks.targets import BATCH_SIZES, TARGET_MISSED, cases_of_targets, targets
from benchmarks.timing import Timing
from benchmarks.workers import Case, Workers
from pdeinfer import ParityError, PdeinferError
from pdeinfer.checks.parity import compare
from pdeinfer.checks.report import Comparison
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
    for route, reason in [(route, reason) for route in routes if (reason := why_left_out(route))]:
        print(f"Left out: {route}, since {reason}.\n", flush=True)
        routes.remove(route)
    try:
        timings, of_targets, comparisons = measure(presets, routes, arguments.rounds or (7 if arguments.quick else 11))
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    print_times(timings, presets, routes)
    print_comparisons(comparisons)
    return print_targets(of_targets)


def measure(
    presets: Sequence[Preset], routes: Sequence[str], rounds: int
) -> tuple[dict[Case, Timing], dict[Case, Timing], dict[Case, Comparison]]:
    """Compare all outputs; return the timing of every case, a second one of those with targets, and the comparisons.

    Raises:
        ParityError: an output differs by more than its precision explains.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders = write_networks(presets, Path(folder))
        for path in folders.values():
            write_int8(path)
        with Workers(folders, routes, THREADS, BATCH_SIZES) as workers:
            names = [preset.name for preset in presets]
            cases = _product(names, routes)
            comparisons = {case: _compare(workers, case) for case in cases}
            timings = _time(workers, cases, rounds)
            return timings, _time(workers, cases_of_targets(timings), TARGET_ROUNDS), comparisons


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


def _compare(workers: Workers, case: Case) -> Comparison:
    """Return how close a case comes to tf2onnx's file in ONNX Runtime.

    Raises:
        ParityError: it differs by more than its route's precision explains.
    """
    precision, reference = ROUTES[case.route].precision, case._replace(route=PLAIN, threads=1)
    count = max(4, case.batch_size) if precision is FLOAT32 else max(BATCH_SIZES)
    report = compare(
        (PLAIN, lambda batch: workers.classify(reference, batch)),
        (case.route, lambda batch: workers.classify(case, batch)),
        {f"smooth noise, {case.network}": smooth_images(32, 32, 3, count)},
        batch_sizes=(case.batch_size,),
        tolerance=None,
    )
    (found,) = report.comparisons
    if not precision.explains(found):
        raise ParityError(
            f"expected {precision.name} to differ by at most {precision.tolerance:g} and to keep at least "
            f"{precision.agreement:.0%} of the labels:\n{report}"
        )
    return found


def print_times(timings: Mapping[Case, Timing], presets: Sequence[Preset], routes: Sequence[str]) -> None:
    """Print two tables per number of threads and batch size: the times, and their ratios."""
    names = [preset.name for preset in presets]
    plain_names = [preset.name for preset in presets if preset in WITHOUT_PDE]
    pdes = [name for name in names if name not in plain_names]
    for threads in THREADS:
        for size in BATCH_SIZES:
            print(f"### Batch {size}, {'one thread' if threads == 1 else f'{threads} threads'}\n")
            print(f"Milliseconds per batch, median (quartiles), {processor()}:\n")
            rows, ratios = [], []
            for route in routes:
                cases = {name: Case(name, route, threads, size) for name in names}
                precision = ROUTES[route].precision.name
                rows.append(
                    [
                        route,
                        precision,
                        *(milliseconds(timings[case]) if case in timings else "" for case in cases.values()),
                    ]
                )
                ours = [timings[cases[name]].median for name in pdes]
                ratios.append([route, precision])
                for name in plain_names:
                    other = timings.get(cases[name]) or timings[cases[name]._replace(route=FUSED)]
                    ratios[-1] += [f"{other.median / median:.2f}" for median in ours]
                plain = [timings[cases[name]._replace(route=PLAIN)].median for name in pdes]
                ratios[-1] += [f"{slow / median:.2f}" for slow, median in zip(plain, ours, strict=True)]
            print(table(["route", "precision", *names], rows))
            print(
                "Speed relative to other networks on the same route, in its precision, and to tf2onnx in ONNX\n"
                f"Runtime, in float32, {processor()}:\n"
            )
            header = [f"{name} x {than}" for than in (*plain_names, "tf2onnx") for name in pdes]
            print(table(["route", "precision", *header], ratios), flush=True)


def print_comparisons(comparisons: Mapping[Case, Comparison]) -> None:
    """Print how close the routes in lower precision come to float32, the worst over threads and batch sizes."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for case, comparison in comparisons.items():
        if ROUTES[case.route].precision is not FLOAT32:
            found.setdefault((case.network, case.route), []).append(comparison)
    if not found:
        return
    print("### Lower precision\n")
    print(
        f"Labels equal to those of tf2onnx's file in float32, of {max(BATCH_SIZES)} images, and the largest\n"
        "difference of a probability. The random weights here tell classes apart by less than trained ones:\n"
        "`python -m benchmarks.int8` measures the accuracy of a trained network. OpenVINO runs in bf16 where that is\n"
        "its default, on a CPU that has it. The int8 file has convolutions in int8 and PDE layers in float32.\n"
    )
    rows = [
        [*key, str(min(one.top1_equal or 0 for one in worst)), f"{max(one.max_absolute for one in worst):.4f}"]
        for key, worst in found.items()
    ]
    print(table(["network", "route", "labels equal", "largest difference"], rows), flush=True)


def print_targets(timings: Mapping[Case, Timing]) -> int:
    """Print which targets are met; return the exit code, 0 or TARGET_MISSED."""
    found = targets(timings)
    print(
        f"### Targets\n\nMeasured again on their own, in {TARGET_ROUNDS} turns each, all in float32, {processor()}:\n"
    )
    rows = [
        [
            target.name,
            f"{target.required:.2f}",
            "-" if target.measured is None else f"{target.measured:.2f}",
            target.verdict,
        ]
        for target in found
    ]
    print(table(["ratio of medians", "at least", "measured", ""], rows))
    return TARGET_MISSED if any(target.verdict == "not met" for target in found) else 0


if __name__ == "__main__":
    sys.exit(main())
