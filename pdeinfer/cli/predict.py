"""`pdeinfer predict`: classify image files."""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pdeinfer.cli.output import Progress, print_error
from pdeinfer.errors import ImageError, PdeinferError
from pdeinfer.files import csv_table
from pdeinfer.images.files import describe_left_out, find_image_files
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.prediction import Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.text import printable, valid


def run(options: argparse.Namespace) -> int:
    """Print one line per image; return 1 if an image could not be read or classified."""
    pending: deque[str] = deque()
    failures = _Failures()
    with (
        Predictor(
            options.model, precision=options.precision, device=options.device, threshold=options.threshold
        ) as predictor,
        IsolatedDecoders() as decoders,
    ):
        decode_file = decoders.to_array if options.isolate else decoders.to_array_where_needed
        decode = partial(decode_file, spec=predictor.info().input)
        files = _find_files(options.images, failures, recursive=options.recursive)
        failures.progress = progress = Progress(len(files), "images")
        print_prediction = _printer(options)
        images = _readable_images(files, decode, pending, failures)
        for prediction in predictor.predict_iter(images, options.top_k, on_error="yield"):
            image = pending.popleft()
            if isinstance(prediction, Prediction):
                print_prediction(image, prediction)
                progress.advance()
            else:
                failures.add(PdeinferError(f"{image}: {prediction}"))
        progress.clear()
    return 1 if failures.count else 0


class _Failures:
    """Prints errors and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self.progress: Progress | None = None

    def add(self, error: PdeinferError) -> None:
        self.count += 1
        if self.progress is not None:
            self.progress.clear()
            self.progress.advance()
        print_error(error)


def _find_files(paths: Sequence[str], failures: _Failures, *, recursive: bool) -> list[str | os.PathLike[str]]:
    """Return the files at `paths` and the images in the folders; list on stderr what else the folders hold."""
    files: list[str | os.PathLike[str]] = []
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if the name is too long
            files.append(path)
            continue
        try:
            found = find_image_files(path, recursive=recursive)
        except ImageError as error:
            failures.add(error)
            continue
        for line in describe_left_out(found.left_out):
            print(f"pdeinfer: {line}", file=sys.stderr)
        files += found.images
    return files


def _readable_images(
    files: Sequence[str | os.PathLike[str]],
    decode: Callable[[str | os.PathLike[str]], NDArray[np.uint8]],
    readable: deque[str],
    failures: _Failures,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in the files and append their names to `readable`; add the errors of the others."""
    for file in files:
        try:
            image = decode(file)
        except ImageError as error:
            failures.add(error)
        else:
            readable.append(str(file))
            yield image


def _printer(options: argparse.Namespace) -> Callable[[str, Prediction], None]:
    """Return what prints a prediction in the form that the options ask for."""
    if options.json:
        return _print_json
    if not options.csv:
        return _print_line
    table = csv_table(sys.stdout)
    table.writerow(("image", "label", "index", "score"))
    return lambda image, prediction: table.writerow((image, prediction.label, prediction.index, prediction.score))


def _print_json(image: str, prediction: Prediction) -> None:
    print(json.dumps({"image": valid(image), **prediction.to_dict()}))


def _print_line(image: str, prediction: Prediction) -> None:
    top = ", ".join(f"{entry.label} {entry.score:.1%}" for entry in prediction.top)
    print(f"{printable(image)}: {top if prediction.label is not None else f'unknown ({top})'}")
