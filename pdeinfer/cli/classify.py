"""`pdeinfer classify`: classify many images into a file."""

import argparse
import os
import sys

from pdeinfer.cli.output import Progress, print_error
from pdeinfer.files import naming
from pdeinfer.images.files import LeftOut
from pdeinfer.offline.classifier import Options
from pdeinfer.offline.parts import Parts
from pdeinfer.offline.run import classify
from pdeinfer.package import zoo
from pdeinfer.text import printable

_MAX_NAMED = 10


def run(options: argparse.Namespace) -> int:
    """Write the results; return 1 if some of the images could not be classified."""
    with naming("the current folder"):
        os.getcwd()  # noqa: PTH109  # it may have been removed, and processes cannot start in it then
    package = zoo.load(options.model)
    how = Options(
        zoo.reference_to(package),
        package.digest,
        precision=options.precision,
        device=options.device,
        top_k=options.top_k,
        threshold=options.threshold,
        batch_size=options.batch_size,
        isolate=options.isolate,
    )
    display = _Display()
    try:
        count = classify(
            options.sources,
            options.out,
            how,
            engine=options.engine,
            workers=options.workers,
            leave_out=display.leave_out,
            report=display.report,
        )
    except OSError as error:  # such as a full disk
        display.close()
        print_error(error)
        if Parts(options.out).is_begun:
            print("pdeinfer: finished images are kept. To resume, run the same command again", file=sys.stderr)
        return 2
    finally:
        display.close()
    print(f"{printable(str(options.out))}: {count.rows:,} images, {count.errors:,} with errors")
    return 1 if count.errors else 0


class _Display:
    """Prints on stderr what is left out, and the progress."""

    def __init__(self) -> None:
        self._left_out = self._files = self._done = 0
        self._progress: Progress | None = None

    def leave_out(self, found: LeftOut) -> None:
        self._left_out += 1
        self._files += found.files
        if self._left_out <= _MAX_NAMED:
            print(f"pdeinfer: {found}", file=sys.stderr)

    def report(self, done: int, total: int) -> None:
        if self._progress is None:
            if self._left_out > _MAX_NAMED:
                print(f"pdeinfer: left out: {self._left_out - _MAX_NAMED:,} more", file=sys.stderr)
            if self._files:
                print(f"pdeinfer: files left out in all: {self._files:,}", file=sys.stderr)
            if done:
                print(f"pdeinfer: {done:,} of {total:,} images were classified before", file=sys.stderr)
            self._progress = Progress(total, "images", done, is_for_file=True)
        elif done > self._done:
            self._progress.advance(done - self._done)
        self._done = done

    def close(self) -> None:
        if self._progress is not None:
            self._progress.clear()
