"""`make bench`: times Predictor, fused and not, against Keras, at batch 1 and 64 on 1 and 2 threads."""

import argparse
import importlib.util
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from unittest import mock

from benchmarks.machine import describe
from benchmarks.routes import open_keras
from benchmarks.timing import Timing, time_in_turns
from pdeinfer import ModelPackage, ParityError, PdeinferError, Predictor
from pdeinfer.checks.parity import Classify, compare, synthetic_images
from pdeinfer.package import zoo
from pdeinfer.package.package import KERAS_FILE

BATCH_SIZES = (1, 64)
THREADS = (1, 2)
PREDICTOR = "Predictor"
UNFUSED = "not fused"  # Predictor without pdeinfer's own operator
KERAS = "Keras predict"
ROW = "{:<28} {:>7} {:>5}  {:<13} {:>9} {:>19} {:>10} {:>8}"
HEADER = ROW.format("model", "threads", "batch", "route", "median ms", "quartiles", "images/s", "x Keras")

Timings = dict[int, dict[str, Timing]]  # by batch size, by route


def main() -> int:
    """Run the benchmark; return the exit code: 0, 1 if outputs differ, 2 if a model cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="folders to measure beside the bundled models")
    try:
        packages = [zoo.load(name) for name in (*zoo.names(), *parser.parse_args().packages)]
        print(*describe(), "", HEADER, sep="\n", flush=True)
        for package in packages:
            for threads in THREADS:
                print_rows(package.card.preset.name, threads, measure_in_new_process(package, threads))
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    return 0


def measure_in_new_process(package: ModelPackage, threads: int) -> Timings:
    """Measure in a new process: TensorFlow takes its number of threads once per process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, package, threads).result()


def measure(package: ModelPackage, threads: int) -> Timings:
    """Check that the outputs are equal; return the timing of every route at every batch size.

    Keras is a route if TensorFlow is installed and the package has a `model.keras`.

    Raises:
        ParityError: the outputs differ.
    """
    spec = package.card.preset.input
    images = synthetic_images(spec.height, spec.width, spec.channels)
    with Predictor(package, device="cpu", threads=threads) as predictor, unfused(package, threads) as other:
        routes: dict[str, Classify] = {PREDICTOR: predictor.predict_proba}
        if predictor.info().pde_layers == "fused":
            routes[UNFUSED] = other.predict_proba
        if KERAS_FILE in package.card.files and importlib.util.find_spec("tensorflow"):
            routes[KERAS] = open_keras(package.card.preset, package.path, threads)
            report = compare((KERAS, routes[KERAS]), (PREDICTOR, predictor.predict_proba), images)
            if not report.passed:
                raise ParityError(f"the routes differ:\n{report}")
        batches = {size: images["smooth noise"][:size] for size in BATCH_SIZES}
        return {
            size: time_in_turns({name: partial(classify, batch) for name, classify in routes.items()})
            for size, batch in batches.items()
        }


def unfused(package: ModelPackage, threads: int) -> Predictor:
    """Return a Predictor that runs its PDE layers in standard operators."""
    with mock.patch.dict(os.environ, PDEINFER_KERNEL="0"):
        return Predictor(package, device="cpu", threads=threads)


def print_rows(model: str, threads: int, timings: Timings) -> None:
    """Print a row per route, with its speed relative to Keras."""
    for batch_size, routes in timings.items():
        for route, timing in routes.items():
            quartiles = f"{1000 * timing.lower_quartile:.3f} - {1000 * timing.upper_quartile:.3f}"
            ratio = f"{routes[KERAS].median / timing.median:.1f}" if KERAS in routes else "-"
            print(
                ROW.format(
                    model,
                    threads,
                    batch_size,
                    route,
                    f"{1000 * timing.median:.3f}",
                    quartiles,
                    f"{batch_size / timing.median:,.0f}",
                    ratio,
                ),
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
