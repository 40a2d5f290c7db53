"""`pdeinfer evaluate` measures a package on its test images."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.checks.evaluation import Evaluation, evaluate
from pdeinfer.cli import main as cli
from pdeinfer.datasets import load_dataset
from pdeinfer.package.package import MODEL_FILES, ONNX_FILE, ModelPackage, write_card
from pdeinfer.spec.presets import Preset
from tests.conftest import GREY_PRESET, write_tiny_package

Captured = pytest.CaptureFixture[str]
Probabilities = Callable[[Preset, np.ndarray], np.ndarray]

EVALUATION = Evaluation(
    model="tiny",
    precision="float32",
    labels=("ant", "butterfly"),
    confusion=((90, 10), (0, 1900)),
    card_accuracy=0.995,
    images_per_second=1234.5,
    batch_size=32,
    device="cpu",
    threads=1,
    pde_layers="fused",
)


def write_package(folder: Path, **card: object) -> Path:
    """Write a package of the tiny network for the digits, whose card has these values."""
    write_tiny_package(folder, GREY_PRESET)
    values = {"training": training_on("digits"), **card}
    write_card(folder, replace(ModelPackage.read(folder).card, **values))
    return folder


def training_on(dataset: str) -> dict[str, object]:
    return {"preset": "digits-pde", "recipe": {"dataset": dataset}, "seed": 0, "precision": "float32"}


@pytest.fixture
def expected(tiny_probabilities: Probabilities) -> np.ndarray:
    """The confusion matrix of the tiny network on the digits' test images, computed in float64."""
    test = load_dataset("digits", None).test
    predicted = tiny_probabilities(GREY_PRESET, test.images).argmax(axis=1)
    return np.array([[np.sum((test.labels == i) & (predicted == j)) for j in range(10)] for i in range(10)])


def test_the_confusion_matrix_counts_the_networks_answers(tmp_path: Path, expected: np.ndarray) -> None:
    evaluation = evaluate(write_package(tmp_path / "tiny"))
    assert np.array_equal(evaluation.confusion, expected)
    assert evaluation.accuracy == expected.trace() / 359
    assert evaluation.images == 359
    assert evaluation.images_per_second > 0
    values = expected.tolist()
    assert evaluation.mutual_confusion("3", "5") == (values[3][5] + values[5][3]) / (sum(values[3]) + sum(values[5]))


def test_an_accuracy_other_than_the_card_s_is_exit_code_1(
    tmp_path: Path, expected: np.ndarray, capsys: Captured
) -> None:
    accuracy = expected.trace() / 359
    for stated, code, words in (
        (accuracy, 0, "as its card states"),
        (accuracy + 2 / 359, 1, f"DIFFERS from its card: {accuracy + 2 / 359:.2%} ({expected.trace() + 2})"),
        (None, 0, "the card states no accuracy"),
    ):
        folder = write_package(
            tmp_path / f"stated-{stated}", metrics={} if stated is None else {"test_accuracy": stated}
        )
        assert cli.main(["evaluate", str(folder)]) == code
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"tiny-grey: {accuracy:.2%} of 359 test images correct ({expected.trace()}), {words}"


def test_json_is_one_object(tmp_path: Path, expected: np.ndarray, capsys: Captured) -> None:
    assert cli.main(["evaluate", str(write_package(tmp_path / "tiny", metrics={})), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["confusion"] == expected.tolist()
    assert values["labels"] == list("0123456789")
    assert values["accuracy"] == expected.trace() / 359
    assert values["equals_card"] is None
    assert values["mutual_confusion_3_5"] == (expected[3, 5] + expected[5, 3]) / expected[[3, 5]].sum()
    assert {"model", "images", "images_per_second", "device", "threads", "batch_size"} <= values.keys()


def test_the_matrix_is_printed_compactly() -> None:
    assert str(EVALUATION).splitlines() == [
        "tiny: 99.50% of 2,000 test images correct (1,990), as its card states",
        "1,234 images per second (cpu, 1 thread, batches of 32, fused operators)",
        "confusion (rows: true, columns: predicted)",
        "           ant butt",
        "      ant   90   10",
        "butterfly    . 1900",
    ]


def test_a_reduced_precision_is_named() -> None:
    assert str(replace(EVALUATION, precision="int8")).startswith("tiny (int8): 99.50% of 2,000")


def test_a_reduced_precision_is_compared_with_its_own_accuracy(tmp_path: Path, expected: np.ndarray) -> None:
    folder = write_package(tmp_path / "tiny")
    shutil.copyfile(folder / ONNX_FILE, folder / MODEL_FILES["int8"])
    accuracy = expected.trace() / 359
    for stated, equals in ((accuracy, True), (accuracy - 1 / 359, False), (None, None)):
        variants = {"int8": {} if stated is None else {"test_accuracy": stated}}
        write_card(folder, replace(ModelPackage.read(folder).card, variants=variants))
        evaluation = evaluate(folder, precision="int8")
        assert (evaluation.accuracy, evaluation.equals_card) == (accuracy, equals)
        assert evaluation.to_dict()["precision"] == "int8"
    assert evaluate(folder).card_accuracy == 0.5  # that of model.onnx


def test_digits_add_the_confusion_of_3_and_5() -> None:
    confusion = tuple(tuple(50 * (i == j) + 2 * ((i, j) == (3, 5)) for j in range(10)) for i in range(10))
    lines = str(replace(EVALUATION, labels=tuple("0123456789"), confusion=confusion)).splitlines()
    assert lines[2] == "1.96% of the 3s and 5s taken for each other"


def test_many_classes_print_the_most_frequent_confusions() -> None:
    labels = tuple(f"class-{number}" for number in range(30))
    confusion = np.diag(np.full(30, 100))
    confusion[4, range(12)] += np.arange(12)
    lines = str(replace(EVALUATION, labels=labels, confusion=tuple(map(tuple, confusion.tolist())))).splitlines()
    assert lines[2:4] == ["most frequent confusions (true -> predicted)", "  class-4 -> class-11: 11"]
    assert len(lines) == 3 + 10


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"training": {}}, "tiny-grey: no record of its training names its data set"),
        ({"training": training_on("mnist")}, "tiny-grey: --data-dir must name the folder with the files"),
    ],
)
def test_an_unknown_or_missing_data_set_is_exit_code_2(
    tmp_path: Path, capsys: Captured, card: dict[str, object], message: str
) -> None:
    assert cli.main(["evaluate", str(write_package(tmp_path / "tiny", **card))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pdeinfer: error: {message}")


def test_evaluate_imports_neither_keras_nor_tensorflow(tmp_path: Path) -> None:
    program = (
        "import sys; from pdeinfer.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(str({'tensorflow', 'keras', 'onnx', 'training'} & sys.modules.keys() or code or ''))"
    )
    arguments = ["evaluate", str(write_package(tmp_path / "tiny", metrics={}))]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "of 359 test images correct" in done.stdout
