"""The arguments of `pdeinfer train [SOURCE]`, the same as `python -m training.run [SOURCE]`."""

import argparse
import math
import os
import re
from pathlib import Path

from pdeinfer.cli.arguments import nonempty_path, number_up_to, positive_int
from pdeinfer.cli.output import print_error
from pdeinfer.errors import PdeinferError
from pdeinfer.files import is_inside
from pdeinfer.spec.presets import PRESETS, is_model_name
from training.network_choice import choose_network
from training.options import TrainingOptions

_RECIPE_OPTIONS = (
    "epochs", "batch_size", "learning_rate", "flip", "crop_padding", "mixup", "patience", "balance",
    "validation_fraction",
)  # fmt: skip
EXAMPLES = """examples:
  pdeinfer train
      train digits-pde on scikit-learn's bundled digits (a minute on two CPU cores)
  pdeinfer train photos
      train on your own photos, photos/CLASS/*.jpg, with settings that fit their number and size
  pdeinfer train photos --image-size 96 --epochs 60 --balance --patience 20
  pdeinfer train cifar10-global --data-dir data --epochs 300 --seed 1 --out runs/long
      train on the CIFAR-10 files in data/ (or one level down)
  pdeinfer train cifar10-global --data-dir data --resume
      resume after an interruption, exactly where it stopped
  pdeinfer train cifar10-resnet20 --data-dir photos --image-size 64
      train another network on your own photos

your own photos:
  The folder holds one folder of images per class: photos/CLASS/*.jpg, or photos/train/CLASS/*.jpg with photos/val and
  photos/test beside it. Without photos/test, about a fifth of each class is held out for testing; without photos/val,
  about a tenth of the rest for validation. A photo keeps its split when others are added: its path decides. The network
  is that of cifar10-global, and starts from its weights; a preset with --data-dir and --image-size, or --preset-file,
  chooses another. The training is named after the folder and the network, "photos-global". docs/your-own-images.md is a
  step-by-step tutorial.
"""


def parse_arguments(argv: list[str] | None) -> TrainingOptions:
    """Parse the arguments; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="pdeinfer train",
        description="Train a network. A preset's recipe (training/recipes.py) gives the values of omitted options; "
        "for a folder of photos they follow from the number and the size of its images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE",
                        help="a folder of photos, with a folder for each class, or a preset: "
                        f"{', '.join(PRESETS)} (default: digits-pde)")  # fmt: skip
    data = parser.add_argument_group("data and network")
    data.add_argument("--data-dir", type=nonempty_path, metavar="DIR",
                      help="for a preset: folder with the data set's standard files (default: download them), "
                      "or with --image-size your own photos")  # fmt: skip
    data.add_argument("--image-size", type=_image_size, metavar="N|HxW",
                      help="resize your own photos to this height and width in pixels")  # fmt: skip
    data.add_argument("--isolate", action="store_true",
                      help="decode each photo in a process with limits of memory and CPU time, if they come from "
                      "elsewhere")  # fmt: skip
    data.add_argument("--preset-file", type=nonempty_path, metavar="FILE",
                      help="train the network that this JSON file describes (docs/train.md)")  # fmt: skip
    data.add_argument("--name", type=_name, help="name of the model (default: the preset's, or FOLDER-NETWORK)")
    data.add_argument("--out", type=nonempty_path, metavar="DIR", help="the training's folder (default: runs/NAME)")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--epochs", type=positive_int, metavar="N")
    recipe.add_argument("--batch-size", type=positive_int, metavar="N")
    recipe.add_argument("--lr", type=_rate, metavar="RATE", dest="learning_rate", help="the peak of the learning rate")
    recipe.add_argument("--no-flip", action="store_false", default=None, dest="flip", help="mirror no images")
    recipe.add_argument("--crop-padding", type=_natural, metavar="PIXELS",
                        help="shift images by up to this many pixels at random; 0: not at all")  # fmt: skip
    recipe.add_argument("--mixup", type=number_up_to(1), metavar="ALPHA",
                        help="mixup: mix images and labels at ratios from Beta(ALPHA, ALPHA); 0: none")  # fmt: skip
    recipe.add_argument("--balance", action="store_true", default=None,
                        help="weigh images so that all classes count alike")  # fmt: skip
    recipe.add_argument("--patience", type=positive_int, metavar="N",
                        help="stop when the best validation accuracy is N epochs old")  # fmt: skip
    recipe.add_argument("--validation-fraction", type=number_up_to(0.5), metavar="F",
                        help="for a preset: hold out this part of the training images and keep the best epoch; "
                        "0: train on all and keep the last")  # fmt: skip
    recipe.add_argument("--teacher", metavar="MODEL",
                        help="also distil this model: a bundled model, a package folder or a .keras "
                        "file with the same labels and image size")  # fmt: skip
    recipe.add_argument("--seed", type=_seed, metavar="N", help="of weights, shuffling, augmentation (default: 0)")
    start = recipe.add_mutually_exclusive_group()
    start.add_argument("--init", metavar="MODEL",
                       help="start from those weights of this bundled model or package folder whose shapes "
                       "fit; it needs the same kind of network. none: random weights")  # fmt: skip
    start.add_argument("--resume", action="store_true", help="continue the training in the folder")
    how = parser.add_argument_group("how it runs")
    how.add_argument("--device", type=_device, metavar="DEVICE",
                     help="cpu, gpu or gpu:N (default: a GPU if there is one)")  # fmt: skip
    how.add_argument("--data-parallel", action="store_true",
                     help="divide each batch among all devices (TensorFlow or JAX)")  # fmt: skip
    how.add_argument("--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"),
                     help="of the computation; the weights stay float32 (default: float32)")  # fmt: skip
    how.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard into the folder")
    how.add_argument("--callback", type=_callback, action="append", default=[], dest="callbacks",
                     metavar="MODULE:NAME",
                     help="call NAME() in MODULE for a Keras callback, e.g. of MLflow or W&B; repeatable")  # fmt: skip
    return _make_options(parser.parse_args(argv), parser)


def _make_options(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> TrainingOptions:
    """Return the options; reject arguments that do not fit together, and a network that cannot be read."""
    preset, image_folder = _interpret_source(arguments, parser)
    values = vars(arguments)
    recipe = {name: value for name in _RECIPE_OPTIONS if (value := values.pop(name)) is not None}
    if image_folder is not None and "validation_fraction" in recipe:
        parser.error("--validation-fraction is for presets: put validation images of your own into photos/val")
    init = values.pop("init")
    if arguments.resume and init is None:
        init = "none"  # its folder has the weights
    try:
        network = choose_network(preset, arguments.preset_file, init)
    except (PdeinferError, OSError) as error:
        print_error(error)
        parser.exit(2)
    out = arguments.out or Path("runs") / (arguments.name or network.training_name(image_folder))
    if image_folder is not None and is_inside(out, image_folder):
        parser.error(f"expected --out outside the folder of photos, whose folders are its classes, got {out}")
    values |= {"out": out, "data_dir": image_folder or arguments.data_dir}
    return TrainingOptions(**values, network=network, recipe=recipe, image_folder=image_folder)


def _interpret_source(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[str | None, Path | None]:
    """Return the name of the preset and the folder of images that arguments name; reject what does not fit them."""
    source = arguments.source
    preset, image_folder = None, None
    if source in PRESETS:
        preset = source
    elif source is not None:
        if not os.path.isdir(source):  # noqa: PTH112  # Path.is_dir raises OSError for a long name
            parser.error(f"SOURCE {source!r}: expected a folder of photos, or a preset: {', '.join(PRESETS)}")
        if arguments.data_dir:
            parser.error("--data-dir belongs to a preset: SOURCE is the folder of photos already")
        image_folder = Path(source)
    elif not arguments.preset_file:
        preset = "digits-pde"
    if arguments.preset_file and (preset or arguments.resume):
        parser.error("--preset-file takes the place of a preset, and --resume needs neither")
    if arguments.image_size and image_folder is None:
        if not arguments.data_dir:
            parser.error("--image-size is for your own photos: name their folder as SOURCE, or by --data-dir")
        image_folder = arguments.data_dir
    if arguments.isolate and not (image_folder or arguments.resume):
        parser.error("--isolate is for your own photos")
    return preset, image_folder


def _image_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "N" or "HxW"."""
    height, _, width = text.partition("x")
    try:
        return positive_int(height), positive_int(width or height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"expected N or HxW in pixels, got {text!r}") from error


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return rate


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or a positive integer, got {text!r}")
    return int(text)


def _name(text: str) -> str:
    if not is_model_name(text):
        raise argparse.ArgumentTypeError(
            f"expected letters, digits, '.', '_' and '-', a letter or digit first, got {text!r}"
        )
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|gpu(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected cpu, gpu or gpu:N, got {text!r}")
    return text


def _callback(text: str) -> str:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", text):
        raise argparse.ArgumentTypeError(f"expected MODULE:NAME, got {text!r}")
    return text
