"""The command line: list, predict, inspect, verify, evaluate, export, serve."""

import argparse
import io
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pdeinfer import zoo
from pdeinfer.errors import (
    ExportError,
    ImageError,
    MissingDependencyError,
    ParityError,
    PdeinferError,
)
from pdeinfer.images import image_files, to_array
from pdeinfer.inspection import inspect
from pdeinfer.package import MODEL_FILES, ONNX_FILE
from pdeinfer.parity import ParityReport
from pdeinfer.prediction import Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.presets import InputSpec
from pdeinfer.verification import verify
from pdeinfer.version import __version__

_DESCRIPTION = """Compact image classifiers whose backbone solves a diffusion-advection equation.

exit codes: 0 all well; 1 a check, or one of the images, failed; 2 wrong arguments, model or device; 130 interrupted"""

_LIST_EXAMPLES = """examples:
  pdeinfer list
"""

_PREDICT_EXAMPLES = """examples:
  pdeinfer predict seven.png
  pdeinfer predict photos/ cat.jpg --model ./my-package --top-k 1
  pdeinfer predict *.png --json | jq -r '[.image, .label] | @tsv'

With --json each image is one line, a JSON object with the keys image, label, index, score and top (JSON Lines).
An image that cannot be read is one line on stderr; the others are answered, and the exit code is 1.
"""

_VERIFY_EXAMPLES = """examples:
  pdeinfer verify digits-pde
  pdeinfer verify build/mnist-pde
"""

_EVALUATE_EXAMPLES = """examples:
  pdeinfer evaluate digits-pde
  pdeinfer evaluate build/mnist-pde --data-dir data
  pdeinfer evaluate build/photos-global --data-dir photos --json

It takes ONNX Runtime alone. The exit code is 1 where the accuracy is not the one that the model's card states.
"""

_INSPECT_EXAMPLES = """examples:
  pdeinfer inspect seven.png
  pdeinfer inspect cat.jpg --model ./my-package --output pictures

For each PDE layer it prints the Courant and diffusion numbers and writes a picture, IMAGE-MODEL-LAYER.png, of the
diffusivity, the velocity, its gradients and the feature map H after every step, channel by channel.
"""

_EXPORT_EXAMPLES = """examples:
  pdeinfer export runs/digits-pde --output build/digits-pde
  pdeinfer export runs/mnist-pde/model.keras --format all --output build/mnist-pde --force
  pdeinfer export runs/digits-pde --inline --output build/digits-pde-for-openvino
  pdeinfer export runs/mnist-pde --int8 --calibrate data --half --output build/mnist-pde
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; wrong usage raises SystemExit(2), as argparse does."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        if arguments[:1] == ["serve"]:
            return _serve(arguments[1:])  # the server has its own parser, made from its settings
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PdeinferError, OSError) as error:  # the latter: a full disk, no permission
        _print_error(error)
        return 1 if isinstance(error, ParityError) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pdeinfer", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"pdeinfer {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add_command(
        name: str, summary: str, examples: str, run: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    add_command("list", "list the bundled models", _LIST_EXAMPLES, _list)

    predict = add_command("predict", "classify images", _PREDICT_EXAMPLES, _predict)
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="an image file, or a folder of them")
    predict.add_argument("--model", default=zoo.DEFAULT_MODEL, help="bundled model or package folder (%(default)s)")
    predict.add_argument("--top-k", type=_positive_int, default=5, metavar="K", help="classes to name (%(default)s)")
    _add_precision(predict)
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    predict.add_argument("--json", action="store_true", help="print one JSON object per line")

    inspect = add_command("inspect", "show what a model's PDE layers compute for an image", _INSPECT_EXAMPLES, _inspect)
    inspect.add_argument("image", metavar="IMAGE", help="an image file")
    inspect.add_argument("--model", default=zoo.DEFAULT_MODEL, help="bundled model or package folder (%(default)s)")
    inspect.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="folder of the pictures (.)")

    verify = add_command("verify", "check a model package", _VERIFY_EXAMPLES, _verify)
    verify.add_argument("package", metavar="PACKAGE", help="bundled model or package folder")

    evaluate = add_command("evaluate", "measure a model on its data set's test images", _EVALUATE_EXAMPLES, _evaluate)
    evaluate.add_argument("package", metavar="PACKAGE", help="bundled model or package folder")
    evaluate.add_argument("--data-dir", type=Path, metavar="DIR",
                          help="folder with the data set's standard files, or with your own images; "
                          "scikit-learn's digits need none")  # fmt: skip
    _add_precision(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")

    export = add_command("export", "export a trained network to a model package", _EXPORT_EXAMPLES, _export)
    export.add_argument("source", type=Path, metavar="SOURCE", help="a training's folder, or a .keras file")
    export.add_argument("--format", choices=("onnx", "saved_model", "all"), default="onnx", help="(%(default)s)")
    export.add_argument("--inline", action="store_true",
                        help="write model.onnx without functions, for OpenVINO and older tools")  # fmt: skip
    export.add_argument("--int8", action="store_true",
                        help="add model.int8.onnx, its convolutions in 8-bit integers, for CPUs")  # fmt: skip
    export.add_argument("--calibrate", type=Path, metavar="DIR",
                        help="for --int8: folder with the data set's files, or with training images")  # fmt: skip
    export.add_argument("--half", action="store_true", help="add model.half.onnx, in float16, for GPUs")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the package to write")
    export.add_argument("--force", action="store_true", help="replace the package that is there")

    commands.add_parser("serve", help="classify images over HTTP")
    return parser


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument("--precision", choices=tuple(MODEL_FILES), default="float32",
                         help="of the package's files (%(default)s)")  # fmt: skip


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
    answered: deque[str] = deque()
    failed: list[ImageError] = []
    with Predictor(options.model, precision=options.precision, device=options.device) as predictor:
        images = _readable_images(options.images, predictor.info().input, answered, failed)
        for prediction in predictor.predict_iter(images, options.top_k):
            _print_prediction(answered.popleft(), prediction, options.json)
    return 1 if failed else 0


def _readable_images(
    paths: Sequence[str], spec: InputSpec, readable: deque[str], failed: list[ImageError]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images at `paths`, with their names put into `readable`; print and collect the errors of the others."""
    for path in paths:
        try:
            files = image_files(path) if Path(path).is_dir() else [path]
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
        print(json.dumps({"image": image, **prediction.to_dict()}, ensure_ascii=False))
    else:
        print(f"{image}: " + ", ".join(f"{entry.label} {entry.score:.1%}" for entry in prediction.top))


def _inspect(options: argparse.Namespace) -> int:
    from pdeinfer.drawing import draw_layer

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
    from pdeinfer.evaluation import evaluate

    evaluation = evaluate(options.package, options.data_dir, options.precision)
    print(json.dumps(evaluation.to_dict(), ensure_ascii=False) if options.json else evaluation)
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


def _serve(arguments: Sequence[str]) -> int:
    try:
        from serving.run import main as serve
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("pdeinfer", "serving"):
            raise  # no package that is missing, but an error in this one
        raise MissingDependencyError(str(error.name), "serve", "serving") from error
    return serve(arguments)


def _print_error(error: Exception) -> None:
    print(f"pdeinfer: error: {error}", file=sys.stderr)


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)
