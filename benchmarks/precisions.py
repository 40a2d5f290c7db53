"""A model in less precision: how well it classifies its test images, and how fast, beside `model.onnx`."""

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import onnx

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.timing import Timing, time_in_turns
from pdeinfer import ModelPackage, PdeinferError, Predictor, zoo
from pdeinfer.datasets import Split, load_test_split, load_training_images
from pdeinfer.evaluation import evaluate_on
from pdeinfer.export.precisions import to_half, to_int8
from pdeinfer.package import MODEL_FILES, ONNX_FILE, write_card
from pdeinfer.parity import Array

BATCH_SIZES = (1, 64)


def main() -> int:
    """Run the benchmark; return the exit code: 0, or 2 where a model or its data set cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    parser.add_argument("model", nargs="?", default="cifar10-global", help="bundled model or package (%(default)s)")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder with the model's data set")
    options = parser.parse_args()
    try:
        package = zoo.load(options.model)
        card = package.card
        test = load_test_split(card.training, card.preset, options.data_dir)
        training_images = load_training_images(card.training, card.preset, options.data_dir)
        print(machine())
        with tempfile.TemporaryDirectory() as folder:
            measured = with_variants(package, training_images, Path(folder) / card.preset.name)
            print_rows(measured, test, measure(measured, test.images))
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


def with_variants(package: ModelPackage, training_images: Array, folder: Path) -> ModelPackage:
    """Copy a package to `folder`, and add its files of less precision."""
    shutil.copytree(package.path, folder)
    model = onnx.load(folder / ONNX_FILE)
    (folder / MODEL_FILES["half"]).write_bytes(to_half(model).SerializeToString())
    (folder / MODEL_FILES["int8"]).write_bytes(to_int8(model, training_images).SerializeToString())
    return ModelPackage(folder, write_card(folder, package.card))


def measure(package: ModelPackage, images: Array) -> dict[int, dict[str, Timing]]:
    """Return the timing of every precision, in turns on one thread, by batch size and precision."""
    predictors = {
        name: Predictor(package, precision=name, device="cpu", threads=1, batch_size=64) for name in MODEL_FILES
    }
    return {
        size: time_in_turns(
            {name: partial(predictor.predict_proba, images[:size]) for name, predictor in predictors.items()}, rounds=51
        )
        for size in BATCH_SIZES
    }


def print_rows(package: ModelPackage, test: Split, timings: dict[int, dict[str, Timing]]) -> None:
    """Print a row for each precision: size, accuracy and times, with how many times as fast as float32 it is."""
    rows = []
    for name in package.precisions:
        row = [name, f"{package.card.files[MODEL_FILES[name]].bytes:,}"]
        row.append(f"{evaluate_on(test, package, name).accuracy:.2%}")
        for times in timings.values():
            row += [milliseconds(times[name]), f"{times['float32'].median / times[name].median:.2f}"]
        rows.append(row)
    with Predictor(package, device="cpu") as predictor:
        print(f"{package.card.preset.name}, PDE layers {predictor.info().pde_layers}, {len(test):,} test images;")
    print("milliseconds a batch on one thread, median (quartiles), and times as fast as float32:\n")
    header = [column for size in BATCH_SIZES for column in (f"batch {size}", "x float32")]
    print(table(["precision", "bytes", "accuracy", *header], rows))


if __name__ == "__main__":
    sys.exit(main())
