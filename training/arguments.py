"""The arguments of `pdeinfer train [PRESET]`, the same as `python -m training.run [PRESET]`."""

import argparse
import shlex
from pathlib import Path

from pdeinfer.cli.arguments import positive_int
from pdeinfer.spec.presets import PRESETS
from training.own_images import own_name

EXAMPLES = """examples:
  pdeinfer train
      train digits-pde on scikit-learn's bundled digits (a minute on two CPU cores)
  pdeinfer train mnist-pde --data-dir data
      train on the MNIST files in data/ (or one level down)
  pdeinfer train cifar10-global --data-dir data --epochs 100 --seed 1 --out runs/long
  pdeinfer train cifar10-global --data-dir data --resume
      resume after an interruption, exactly where it stopped
  pdeinfer train cifar10-global --data-dir photos --image-size 64 --init build/cifar10-global
      train the network of cifar10-global on your own images, starting from the weights of a model

your own images:
  With --image-size, --data-dir holds one folder of images per class: DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg with
  DIR/val and DIR/test beside it. Without DIR/test, a fifth of each class is held out for testing; without DIR/val, a
  tenth of the rest for validation. The choice is random but always the same. The training is named after the folder and
  the network, "photos-global". Images are decoded once and held in memory, two to three times HEIGHT x WIDTH x CHANNELS
  bytes each: 10,000 images of 64x64 take about 0.4 GB. docs/your-own-images.md is a step-by-step tutorial.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="pdeinfer train",
        description="Train a network. The preset's recipe (training/recipes.py) gives the values of omitted options.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("preset", nargs="?", default="digits-pde", choices=PRESETS, metavar="PRESET",
                        help=f"one of {', '.join(PRESETS)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="folder with the data set's standard files (default: download them), "
                        "or with --image-size your own images")  # fmt: skip
    parser.add_argument("--image-size", type=_image_size, metavar="N|HxW",
                        help="train on your own images, resized to this height and width in pixels")  # fmt: skip
    parser.add_argument("--isolate", action="store_true",
                        help="decode each of your own images in a process with limits of memory and CPU time, "
                        "if they come from elsewhere")  # fmt: skip
    parser.add_argument("--epochs", type=positive_int, metavar="N")
    parser.add_argument("--batch-size", type=positive_int, metavar="N")
    parser.add_argument("--mixup", type=_mixup, metavar="ALPHA",
                        help="mixup: mix images and labels at ratios from Beta(ALPHA, ALPHA); 0: none")  # fmt: skip
    parser.add_argument("--teacher", metavar="MODEL",
                        help="also distil this model: a bundled model, a package folder or a .keras "
                        "file with the same labels and image size")  # fmt: skip
    parser.add_argument("--seed", type=_seed, metavar="N", help="of weights, shuffling, augmentation (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the training's folder (default: runs/NAME)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--init", metavar="MODEL",
                       help="start from those weights of this bundled model or package folder whose shapes "
                       "fit; it needs the same kind of network")  # fmt: skip
    start.add_argument("--resume", action="store_true", help="continue the training in the folder")
    parser.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard into the folder")
    parser.add_argument("--data-parallel", action="store_true",
                        help="divide each batch among all devices (TensorFlow or JAX)")  # fmt: skip
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"),
                        help="of the computation; the weights stay float32 (default: float32)")  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.image_size and not arguments.data_dir:
        parser.error("--image-size needs --data-dir, the folder of your own images")
    if arguments.isolate and not (arguments.image_size or arguments.resume):
        parser.error("--isolate is for your own images: it needs --image-size")
    name = own_name(arguments.preset, arguments.data_dir) if arguments.image_size else arguments.preset
    arguments.out = arguments.out or Path("runs") / name
    return arguments


def resume_command(arguments: argparse.Namespace) -> str:
    """Return the command that resumes the training; its folder records the other arguments."""
    command = ["pdeinfer", "train", arguments.preset, "--out", str(arguments.out), "--resume"]
    command += [
        f"--{name}"
        for name in ("isolate", "tensorboard", "data-parallel")
        if getattr(arguments, name.replace("-", "_"))
    ]
    return shlex.join(command)


def _image_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "N" or "HxW"."""
    height, _, width = text.partition("x")
    try:
        return positive_int(height), positive_int(width or height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"expected N or HxW in pixels, got {text!r}") from error


def _mixup(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return alpha


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {2**32 - 1}, got {text!r}")
    return int(text)
