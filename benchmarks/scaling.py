"""Measures what larger images and more time steps cost, as tables and plots."""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.networks import RESNET, pde_preset, with_side, write_networks
from benchmarks.routes import FUNCTION, FUSED, PLAIN
from benchmarks.timing import Timing
from benchmarks.workers import Case, Workers
from pdeinfer.spec.presets import Preset

SIDES = (32, 64, 128, 256, 512)
STEPS = (1, 2, 3, 5, 8, 10)
ROUTES = (FUSED, FUNCTION, PLAIN)
RESNET32 = "ResNet32, ONNX Runtime"

Curves = Mapping[str, Sequence[Timing]]  # by what is drawn, a point for each size or K


def main() -> int:
    """Run the benchmark, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="samples of each time (default: 11)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write the plots there, as PNG")
    arguments = parser.parse_args()
    print(machine())
    print("Milliseconds per image at batch 1, one thread, median (quartiles).\n")
    by_side = measure([(with_side(pde_preset(1), side), with_side(RESNET, side)) for side in SIDES], arguments.rounds)
    print(table(["pixels, K=1", *(f"{side}x{side}" for side in SIDES)], _rows(by_side)), flush=True)
    by_steps = measure([(pde_preset(steps), RESNET) for steps in STEPS], arguments.rounds)
    print(table(["time steps, 32x32", *(f"K={steps}" for steps in STEPS)], _rows(by_steps)))
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        plot(by_side, SIDES, "image side in pixels, K = 1", arguments.plots / "sides.png", is_log=True)
        plot(by_steps, STEPS, "time steps K, 32x32 pixels", arguments.plots / "steps.png", is_log=False)
    return 0


def measure(pairs: Sequence[tuple[Preset, Preset]], rounds: int) -> dict[str, list[Timing]]:
    """Return the curves of pairs of networks: one with PDE layers, and the ResNet32 to compare it with."""
    presets = list(dict.fromkeys(preset for pair in pairs for preset in pair))
    with tempfile.TemporaryDirectory() as folder, Workers(write_networks(presets, Path(folder), 1), ROUTES) as workers:
        cases = {
            **{route: [Case(pde.name, route, 1, 1) for pde, _ in pairs] for route in ROUTES},
            RESNET32: [Case(resnet.name, FUSED, 1, 1) for _, resnet in pairs],
        }
        every_case = list(dict.fromkeys(case for curve in cases.values() for case in curve))
        timings = workers.time_in_turns(every_case, rounds, sample_seconds=0.02)
    return {name: [timings[case] for case in curve] for name, curve in cases.items()}


def plot(curves: Curves, values: Sequence[int], label: str, path: Path, *, is_log: bool) -> None:
    """Draw the curves on logarithmic or linear axes, and write the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, timings in curves.items():
        axes.plot(values, [1000 * timing.median for timing in timings], "--" if name == RESNET32 else "o-", label=name)
    if is_log:
        axes.set(xscale="log", yscale="log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(values, map(str, values), minor=False)
    axes.minorticks_off()
    axes.set(xlabel=label, ylabel="milliseconds per image")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _rows(curves: Curves) -> list[list[str]]:
    return [[name, *map(milliseconds, timings)] for name, timings in curves.items()]


if __name__ == "__main__":
    sys.exit(main())
