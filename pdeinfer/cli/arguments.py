"""The arguments and the help of the command line."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from pdeinfer.package import zoo
from pdeinfer.package.package import MODEL_FILES
from pdeinfer.text import is_url
from pdeinfer.version import __version__

_MOST_WORKERS = 10_000  # of `classify`; a Ray cluster may have thousands of CPUs

_DESCRIPTION = """Compact image classifiers whose backbone solves a diffusion-advection equation.

exit codes: 0 success; 1 a check failed or an image could not be classified; 2 wrong arguments, model or
device; 130 interrupted. serve: 0 stopped by SIGTERM or Ctrl-C; 1 its address is not available or a
worker died at the start; 2 as above"""

_LIST_EXAMPLES = """examples:
  pdeinfer list
"""

_PREDICT_EXAMPLES = """examples:
  pdeinfer predict seven.png
  pdeinfer predict photos/ cat.jpg --model ./my-package --top-k 1
  pdeinfer predict *.png --json | jq -r '[.image, .label] | @tsv'
  pdeinfer predict photos/ --csv > photos.csv

With --json each image is a JSON object on one line, with the keys image, label, index, score and top (JSON Lines). With
--csv the columns are image, label, index and score. Where the score is below --threshold, label and index are null, or
empty in a table. While the output goes to a file, a terminal shows the progress.
An image that cannot be read is reported on stderr; the others are classified, and the exit code is 1.
"""

_CLASSIFY_EXAMPLES = """examples:
  pdeinfer classify photos/ --out photos.parquet
  pdeinfer classify 'shards/*.tar' --out labels.csv --model ./my-package
  pdeinfer classify train-00000.parquet --out labels.jsonl --workers 8
  pdeinfer classify /mnt/photos --out /mnt/labels.parquet --engine ray

A row of the file has the columns source, label, score, top_labels, top_scores, error_code and error, in the order of
the sources. An image that cannot be read is a row with an error, and the exit code is 1. If the command is stopped, the
same command goes on: until the file is complete, its parts are in the folder FILE.parts beside it.
"""

_VERIFY_EXAMPLES = """examples:
  pdeinfer verify digits-pde
  pdeinfer verify build/mnist-pde --allow-skipped
  pdeinfer verify build/mnist-pde --device cuda --allow-skipped

The network is compared with the answers of its TensorFlow original, which are in the package. The onnx checker needs
onnx, and parity with the original itself needs TensorFlow: pip install 'pdeinfer[train]'. Without them these checks
are skipped, and the exit code is 1 unless --allow-skipped is given.
"""

_EVALUATE_EXAMPLES = """examples:
  pdeinfer evaluate digits-pde
  pdeinfer evaluate build/mnist-pde --data-dir data
  pdeinfer evaluate build/photos-global --data-dir photos --json
  pdeinfer evaluate build/photos-global --data-dir new-photos --report report

Without --data-dir, or with the data set that the model was trained on, it measures the test images of that data set;
the exit code is 1 if the accuracy differs from the one in the model's card. Any other folder is taken as DIR/LABEL/* or
DIR/test/LABEL/*, and all of these images are measured: they should be none that the model was trained on. Folders named
after no label of the model are left out, with a warning. If an image cannot be read, the others are measured, and the
exit code is 1. This needs scikit-learn.
"""

_INSPECT_EXAMPLES = """examples:
  pdeinfer inspect seven.png
  pdeinfer inspect cat.jpg --model ./my-package --output pictures
  pdeinfer inspect seven.png --html seven.html

For each PDE layer it prints the Courant and diffusion numbers and writes a picture, IMAGE-MODEL-LAYER.png, of the
diffusivity, the velocity, its gradients, and the feature map H after every step, channel by channel.
"""

_EXPORT_EXAMPLES = """examples:
  pdeinfer export runs/digits-pde --output build/digits-pde
  pdeinfer export runs/mnist-pde/model.keras --format all --output build/mnist-pde --force
  pdeinfer export runs/digits-pde --inline --output build/digits-pde-for-openvino
  pdeinfer export runs/mnist-pde --calibrate data --output build/mnist-pde
  pdeinfer export runs/photos-global --fit-temperature --output build/photos-global
  pdeinfer export runs/mnist-pde --format litert --calibrate data --output build/mnist-pde
  pdeinfer export cifar10-global --format triton --output build/triton

--format says what the package gets beside model.onnx: saved_model (also named all) adds saved_model/, litert adds
model.tflite and needs pip install 'pdeinfer[litert]'. triton writes no package: it adds a model to the Triton model
repository in --output, from a training or, without TensorFlow, from a package.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; it stores the name of the command as `command`."""
    parser = argparse.ArgumentParser(
        prog="pdeinfer", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"pdeinfer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add_command(name: str, summary: str, examples: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return command

    add_command("list", "list the bundled models", _LIST_EXAMPLES)
    _add_predict(add_command("predict", "classify images", _PREDICT_EXAMPLES))
    _add_classify(add_command("classify", "classify many images into a file", _CLASSIFY_EXAMPLES))
    _add_inspect(add_command("inspect", "show what a model's PDE layers compute for an image", _INSPECT_EXAMPLES))
    _add_verify(add_command("verify", "check a model package", _VERIFY_EXAMPLES))
    _add_evaluate(add_command("evaluate", "measure a model on labelled images", _EVALUATE_EXAMPLES))
    _add_export(add_command("export", "export a trained network to a model package", _EXPORT_EXAMPLES))
    commands.add_parser("serve", help="classify images over HTTP")
    commands.add_parser("train", help="train a network")
    return parser


def _add_predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder of image files")
    predict.add_argument("--recursive", action="store_true", help="also take the images in subfolders")
    _add_prediction_options(predict)
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line")
    form.add_argument("--csv", action="store_true", help="print a table with the best class of each image")


def _add_classify(classify: argparse.ArgumentParser) -> None:
    classify.add_argument("sources", nargs="+", metavar="SOURCE",
                          help="image file, folder (with those below it), .tar file in WebDataset's layout, .parquet "
                          "file with a column of images, or pattern of these in quotes")  # fmt: skip
    classify.add_argument("-o", "--out", type=nonempty_path, required=True, metavar="FILE",
                          help="the file to write: .parquet, .csv or .jsonl")  # fmt: skip
    _add_prediction_options(classify)
    classify.add_argument("--batch-size", type=positive_int, metavar="N",
                          help="most images in one run of the network (32 on a CPU, 256 on a GPU)")  # fmt: skip
    classify.add_argument("--engine", choices=("local", "ray"), default="local",
                          help="processes on this machine, or actors on a Ray cluster (%(default)s)")  # fmt: skip
    classify.add_argument("--workers", type=worker_count, metavar="N",
                          help="processes or actors, each with its own copy of the model (one for each CPU)"
                          )  # fmt: skip


def _add_inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument("image", metavar="IMAGE", help="image file")
    _add_model(inspect, "--model", default=zoo.DEFAULT_MODEL)
    inspect.add_argument(
        "-o", "--output", type=nonempty_path, default=Path(), metavar="DIR", help="folder for the pictures (.)"
    )
    inspect.add_argument(
        "--html", type=nonempty_path, metavar="FILE", help="write one HTML file to look into, and no pictures"
    )


def _add_verify(verify: argparse.ArgumentParser) -> None:
    _add_model(verify, "package")
    verify.add_argument("--device", default="cpu", help="where the network is compared with the answers of its "
                        "original in the package: cpu, cuda or cuda:N (%(default)s)")  # fmt: skip
    verify.add_argument("--allow-skipped", action="store_true", help="exit with 0 although checks were skipped")


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    _add_model(evaluate, "package")
    evaluate.add_argument("--data-dir", type=nonempty_path, metavar="DIR",
                          help="folder with the data set's standard files, or with a folder of images for each "
                          "label; not needed for scikit-learn's digits")  # fmt: skip
    evaluate.add_argument("--report", type=nonempty_path, metavar="DIR",
                          help="also write DIR/index.html, with pictures of the worst mistakes")  # fmt: skip
    _add_precision(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("source", metavar="SOURCE",
                        help="folder of a training or a package, .keras file, or bundled model")  # fmt: skip
    export.add_argument("--format", choices=("onnx", "saved_model", "all", "litert", "triton"), default="onnx",
                        help="(%(default)s)")  # fmt: skip
    export.add_argument("--inline", action="store_true",
                        help="write model.onnx without functions, for OpenVINO and older tools")  # fmt: skip
    export.add_argument("--calibrate", type=nonempty_path, metavar="DIR",
                        help="add model.int8.onnx, with 8-bit convolutions for CPUs, calibrated on the training "
                        "images in this folder; with --format litert also model.int8.tflite, if accurate")  # fmt: skip
    export.add_argument("--fit-temperature", action="store_true",
                        help="calibrate the probabilities: a temperature fitted on the validation images")  # fmt: skip
    export.add_argument("-o", "--output", type=nonempty_path, required=True, metavar="DIR",
                        help="the package to write, or Triton's model repository")  # fmt: skip
    export.add_argument("--force", action="store_true", help="replace an existing package, or a model of that name")


def _add_prediction_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `predict` and `classify`."""
    command.add_argument("--isolate", action="store_true",
                         help="decode images from elsewhere in a process with limits of memory and time")  # fmt: skip
    _add_model(command, "--model", default=zoo.DEFAULT_MODEL)
    command.add_argument("--top-k", type=positive_int, default=5, metavar="K",
                         help="the most probable classes of each image (%(default)s)")  # fmt: skip
    _add_precision(command)
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    command.add_argument("--threshold", type=number_up_to(1), default=0.0, metavar="P",
                         help="an answer below this probability, 0 to 1, has no label (0)")  # fmt: skip


def _add_model(command: argparse.ArgumentParser, name: str, default: str | None = None) -> None:
    metavar = "PACKAGE" if default is None else "MODEL"
    suffix = "" if default is None else " (%(default)s)"
    command.add_argument(name, default=default, metavar=metavar, help=f"bundled model, or package folder{suffix}")


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument("--precision", choices=tuple(MODEL_FILES), default="float32",
                         help="which of the package's ONNX files to run (%(default)s)")  # fmt: skip


def nonempty_path(text: str) -> Path:
    """Parse an argument that is a path; an empty one, such as of an unset variable, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    if is_url(text):
        raise argparse.ArgumentTypeError(f"expected a local path, got a URL: {text}")
    return Path(text)


def positive_int(text: str) -> int:
    """Parse an argument that is an integer of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def worker_count(text: str) -> int:
    """Parse an argument that is a number of processes."""
    count = positive_int(text)
    if count > _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST_WORKERS:,}, got {text}")
    return count


def number_up_to(most: float) -> Callable[[str], float]:
    """Return what parses an argument that is a number from 0 to `most`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number from 0 to {most:g}, got {text!r}")
        return value

    return number
