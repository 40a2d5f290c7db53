"""`pdeinfer predict`: classify image files."""

import argparse
import json
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pdeinfer.cli.output import print_error
from pdeinfer.errors import ImageError, PdeinferError
from pdeinfer.images.convert import to_array
from pdeinfer.images.files import describe_left_out, find_image_files
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.prediction import Prediction
from pdeinfer.predictor import Predictor


def run(options: argparse.Namespace) -> int:
    """Print one line per image; return 1 if an image could not be read or classified."""
    pending: deque[str] = deque()
    failed: list[PdeinferError] = []
    with (
        Predictor(options.model, precision=options.precision, device=options.device) as predictor,
        IsolatedDecoders() as decoders,
    ):
        decode = partial(decoders.to_array if options.isolate else to_array, spec=predictor.info().input)
        images = _readable_images(options.images, decode, pending, failed, recursive=options.recursive)
        for prediction in predictor.predict_iter(images, options.top_k):
            image = pending.popleft()
            if all(math.isfinite(entry.score) for entry in prediction.top):
                _print_prediction(image, prediction, options.json)
            else:
                failed.append(PdeinferError(f"{image}: the network {options.model} computed NaN or infinity"))
                print_error(failed[-1])
    return 1 if failed else 0


def _readable_images(
    paths: Sequence[str],
    decode: Callable[[str | os.PathLike[str]], NDArray[np.uint8]],
    readable: deque[str],
    failed: list[PdeinferError],
    *,
    recursive: bool,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images at `paths` and append their names to `readable`; print and collect the errors of the others."""
    for path in paths:
        try:
            files = _files_at(path, recursive)
        except ImageError as error:
            print_error(error)
            failed.append(error)
            continue
        for file in files:
            try:
                image = decode(file)
            except ImageError as error:
                print_error(error)
                failed.append(error)
            else:
                readable.append(str(file))
                yield image


def _files_at(path: str, recursive: bool) -> Sequence[str | os.PathLike[str]]:
    """Return the file at `path`, or the images in that folder; list on stderr what else the folder holds."""
    if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if the name is too long
        return [path]
    found = find_image_files(path, recursive=recursive)
    for line in describe_left_out(found.left_out):
        print(f"pdeinfer: {line}", file=sys.stderr)
    return found.images


def _print_prediction(image: str, prediction: Prediction, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": image, **prediction.to_dict()}))
    else:
        print(f"{image}: " + ", ".join(f"{entry.label} {entry.score:.1%}" for entry in prediction.top))
