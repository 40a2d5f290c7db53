"""Measures a model's int8 file beside its `model.onnx`: accuracy on the test images, and speed."""

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.timing import time_in_turns
from pdeinfer import ModelPackage, PdeinferError, Predictor
from pdeinfer.arrays import Array
from pdeinfer.datasets import Split, load_test_split, load_training_images
from pdeinfer.export.quantization import to_int8
from pdeinfer.package import zoo
from pdeinfer.package.package import MODEL_FILES, ONNX_FILE
from pdeinfer.package.writing import write_card

BATCH_SIZES = (1, 64)
ROUNDS = 51


def main() -> int:
    """Run the benchmark; return the exit code: 0, or 2 if the model or its data set cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    parser.add_argument("model", nargs="?", default="cifar10-global", help="bundled model or package (%(default)s)")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder with the model's data set")
    options = parser.parse_args()
    try:
        package = zoo.load(options.model)
        card = package.card
        test = load_test_split(card.training_record, card.preset, options.data_dir)
        training_images = load_training_images(card.training_record, card.preset, options.data_dir)
        print(machine())
        with tempfile.TemporaryDirectory() as folder:
            print_rows(with_int8(package, training_images, Path(folder) / card.preset.name), test)
    except PdeinferError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


def with_int8(package: ModelPackage, training_images: Array, folder: Path) -> ModelPackage:
    """Copy a package to `folder` and add its int8 file."""
    shutil.copytree(package.path, folder)
    model = onnx.load(folder / ONNX_FILE)
    (folder / MODEL_FILES["int8"]).write_bytes(to_int8(model, training_images).SerializeToString())
    write_card(folder, package.card)
    return ModelPackage.read(folder)


def print_rows(package: ModelPackage, test: Split) -> None:
    """Measure both precisions, timed in turns on one thread, and print a row for each."""
    predictors = {
        precision: Predictor(package, precision=precision, device="cpu", threads=1, batch_size=max(BATCH_SIZES))
        for precision in package.precisions
    }
    timings = [
        time_in_turns(
            {name: partial(predictor.predict_proba, test.images[:size]) for name, predictor in predictors.items()},
            rounds=ROUNDS,
        )
        for size in BATCH_SIZES
    ]
    answers = {name: predictor.predict_proba(test.images) for name, predictor in predictors.items()}
    expected = answers["float32"]
    rows = []
    for name, found in answers.items():
        labels = found.argmax(axis=1)
        row = [name, f"{package.card.files[MODEL_FILES[name]].bytes:,}", f"{np.mean(labels == test.labels):.2%}"]
        row += [f"{np.mean(labels == expected.argmax(axis=1)):.2%}", f"{np.abs(found - expected).max():.4f}"]
        for times in timings:
            row += [milliseconds(times[name]), f"{times['float32'].median / times[name].median:.2f}"]
        rows.append(row)
    pde_layers = ", ".join(sorted({predictor.info().pde_layers for predictor in predictors.values()}))
    print(f"{package.card.preset.name}, PDE layers {pde_layers}, {len(test):,} test images.")
    print("Milliseconds per batch as median (quartiles), and speed relative to float32:\n")
    columns = [column for size in BATCH_SIZES for column in (f"batch {size}", "x float32")]
    print(table(["precision", "bytes", "accuracy", "labels as float32", "max difference", *columns], rows))


if __name__ == "__main__":
    sys.exit(main())
