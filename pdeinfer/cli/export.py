"""`pdeinfer export`: turn a trained network into a model package, or into a model for Triton."""

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pdeinfer.errors import ExportError
from pdeinfer.export import TEST_IMAGES, export_package, export_to_triton
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage


def run(options: argparse.Namespace) -> int:
    """Export, print the reports, and print the command that uses the package."""
    with _ending_on_sigterm():
        return _run_for_triton(options) if options.format == "triton" else _run_for_package(options)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that the folder that is being written is removed."""
    if threading.current_thread() is not threading.main_thread():  # only there Python has signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_for_package(options: argparse.Namespace) -> int:
    reports = export_package(
        options.source,
        options.output,
        inline=options.inline,
        saved_model=options.format in ("saved_model", "all"),
        litert=options.format == "litert",
        calibrate=options.calibrate,
        temperature=options.fit_temperature,
        force=options.force,
    )
    print("\n".join(map(str, reports)))
    compared = {row.name for report in reports for row in report.comparisons}
    if TEST_IMAGES not in compared:
        print("The data set's test images were not found, so the files were not compared on them.")
    if options.fit_temperature:
        calibration = ModelPackage.read(options.output).card.metrics["calibration"]
        print(
            "temperature {temperature:.3g}: calibration error (ECE) {ece_before:.3f} -> {ece_after:.3f} on {images:,} "
            "{measured_on}".format(**calibration)
        )
    print(f"Next: pdeinfer predict IMAGE --model {shlex.quote(zoo.unambiguous_path(options.output))}")
    return 0


def _run_for_triton(options: argparse.Namespace) -> int:
    if options.calibrate is not None:
        raise ExportError(
            "--calibrate adds a file to a package, and a model for Triton has one file only: leave it out"
        )
    folder, reports = export_to_triton(
        options.source, options.output, temperature=options.fit_temperature, force=options.force
    )
    print("\n".join(map(str, reports)))
    print(f"{folder}: written")
    print(f"Next: tritonserver --model-repository={shlex.quote(str(folder.parent.resolve()))}")
    return 0
