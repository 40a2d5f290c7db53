"""The command line: list, predict, inspect, verify, evaluate, export, serve."""

import argparse
import io
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from pdeinfer.checks.parity import ParityReport
from pdeinfer.checks.verification import verify
from pdeinfer.cli.arguments import make_parser
from pdeinfer.errors import (
    ExportError,
    ImageError,
    MissingDependencyError,
    ParityError,
    PdeinferError,
)
from pdeinfer.images.convert import image_files, to_array
from pdeinfer.inspection.fields import inspect
from pdeinfer.package import zoo
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.prediction import Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import InputSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; wrong usage raises SystemExit(2), as argparse does."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        if arguments[:1] == ["serve"]:
            return _serve(arguments[1:])  # the server has its own parser, made from its settings
        options = make_parser().parse_args(arguments)
        # Pillow's limit is higher than this package's, which is an error.
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has enough
        _drop_output()
        return 1
    except (PdeinferError, OSError) as error:  # the latter: a full disk, no permission
        _print_error(error)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return 1 if isinstance(error, ParityError) else 2


def _drop_output() -> None:
    """Let nobody have what could not be written: the interpreter would try again at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _list(_: argparse.Namespace) -> int:
    names = zoo.names()
    row = "{:<20}{:>10}{:>9}{:>12}{:>13}{:>15}{:>10}"
    print(row.format("name", "input", "classes", "parameters", "MACs", "test accuracy", "size"))
    for name in names:
        card = zoo.load(name).card
        spec = card.preset.input
        accuracy = card.metrics.get("test_accuracy")
        print(
            row.format(
                name,
                f"{spec.height}x{spec.width}x{spec.channels}",
                len(card.preset.labels),
                f"{card.parameters:,}",
                f"{card.macs:,}",
                "" if accuracy is None else f"{accuracy:.2%}",
                f"{card.files[ONNX_FILE].bytes / 1024:,.0f} KiB",
            )
            + ("  default" if name == zoo.DEFAULT_MODEL else "")
        )
    return 0


def _predict(options: argparse.Namespace) -> int:
    pending: deque[str] = deque()
    failed: list[ImageError] = []
    with Predictor(options.model, precision=options.precision, device=options.device) as predictor:
        images = _readable_images(options.images, predictor.info().input, pending, failed)
        for prediction in predictor.predict_iter(images, options.top_k):
            _print_prediction(pending.popleft(), prediction, options.json)
    return 1 if failed else 0


def _readable_images(
    paths: Sequence[str], spec: InputSpec, readable: deque[str], failed: list[ImageError]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images at `paths`, with their names put into `readable`; print and collect the errors of the others."""
    for path in paths:
        try:
            # Path.is_dir raises where a name is too long.
            files = image_files(path) if os.path.isdir(path) else [path]  # noqa: PTH112
        except ImageError as error:
            _print_error(error)
            failed.append(error)
            continue
        for file in files:
            try:
                image = to_array(file, spec)
            except ImageError as error:
                _print_error(error)
                failed.append(error)
            else:
                readable.append(str(file))
                yield image


def _print_prediction(image: str, prediction: Prediction, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": image, **prediction.to_dict()}))
    else:
        print(f"{image}: " + ", ".join(f"{entry.label} {entry.score:.1%}" for entry in prediction.top))


def _inspect(options: argparse.Namespace) -> int:
    from pdeinfer.inspection.drawing import draw_layer

    package = zoo.load(options.model)
    preset = package.card.preset
    image = to_array(options.image, preset.input)
    for layer in inspect(image, package):
        print(f"{preset.name}, {layer.name}: " + "\n  ".join(layer.summary))
        picture = options.output / f"{Path(options.image).stem}-{preset.name}-{layer.name}.png"
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            draw_layer(layer, image, preset.name).save(picture, optimize=True)
        except OSError as error:
            raise PdeinferError(f"{picture} cannot be written: {error.strerror}") from error
        print(f"  {picture}", flush=True)
        if layer.instability:
            severity = "warning" if layer.spec.num_steps > 1 else "note"
            print(f"pdeinfer: {severity}: {layer.name}: {layer.instability}", file=sys.stderr)
    return 0


def _verify(options: argparse.Namespace) -> int:
    outcome = "ok"
    for check in verify(zoo.load(options.package)):
        print(f"{check.name}: {check.outcome}, {check.detail}", flush=True)
        outcome = check.outcome
    return 1 if outcome == "FAILED" else 0


def _evaluate(options: argparse.Namespace) -> int:
    from pdeinfer.checks.evaluation import evaluate

    evaluation = evaluate(options.package, options.data_dir, options.precision)
    print(json.dumps(evaluation.to_dict()) if options.json else evaluation)
    return 1 if evaluation.equals_card is False else 0


def _export(options: argparse.Namespace) -> int:
    if options.int8 != (options.calibrate is not None):
        raise ExportError("--int8 and --calibrate DIR, the folder of training images for it, need each other")
    from pdeinfer.export import TEST_IMAGES, export_package

    reports = export_package(
        options.source,
        options.output,
        inline=options.inline,
        saved_model=options.format in ("saved_model", "all"),
        calibrate=options.calibrate,
        half=options.half,
        force=options.force,
    )
    print("\n".join(map(str, reports)))
    compared = {row.images for report in reports if isinstance(report, ParityReport) for row in report.comparisons}
    if TEST_IMAGES not in compared:
        print("The data set's test images are not at hand: not compared on them.")
    print(f"Next: pdeinfer predict IMAGE --model {options.output}")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "predict": _predict,
    "inspect": _inspect,
    "verify": _verify,
    "evaluate": _evaluate,
    "export": _export,
}


def _serve(arguments: Sequence[str]) -> int:
    try:
        from serving.process.run import main as serve
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("pdeinfer", "serving"):
            raise  # no package that is missing, but an error in this one
        raise MissingDependencyError(str(error.name), "serve", "serving") from error
    return serve(arguments)


def _print_error(error: Exception) -> None:
    print(f"pdeinfer: error: {error}", file=sys.stderr)
