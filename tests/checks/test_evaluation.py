"""`pdeinfer evaluate` measures a package on its test images, or on a folder of labelled images."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.checks import measuring
from pdeinfer.checks.evaluation import Evaluation
from pdeinfer.checks.evaluation_report import report_html
from pdeinfer.checks.labelled_images import FileImages, SplitImages
from pdeinfer.checks.measuring import evaluate
from pdeinfer.checks.metrics import Calibration, ClassMetrics, ConfidenceBin
from pdeinfer.cli import main as cli
from pdeinfer.datasets import Split, find_labelled_files, load_dataset
from pdeinfer.errors import DatasetError, MissingDependencyError
from pdeinfer.package.package import MODEL_FILES, ONNX_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.predictor import Predictor
from tests.conftest import GREY_PRESET, Probabilities, write_tiny_package
from tests.images.image_makers import heic

Captured = pytest.CaptureFixture[str]

EVALUATION = Evaluation(
    model="tiny",
    precision="float32",
    labels=("ant", "butterfly"),
    folder=None,
    confusion=((90, 10), (0, 1900)),
    card_accuracy=0.995,
    accuracy_interval=(0.99, 0.998),
    classes=(ClassMetrics("ant", 100, 1.0, 0.9), ClassMetrics("butterfly", 1900, 1900 / 1910, 1.0)),
    calibration=Calibration(0.0125, ()),
    images_per_second=1234.5,
    batch_size=32,
    device="cpu",
    threads=1,
    pde_layers="fused",
    source=SplitImages(Split(np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int64))),
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
        "95% interval of the accuracy: 99.00% to 99.80%; calibration error (ECE): 0.013",
        "1,234 images per second (cpu, 1 thread, batches of 32, fused operators)",
        "confusion (rows: true, columns: predicted)",
        "           ant butt precision    recall",
        "      ant   90   10    100.0%     90.0%",
        "butterfly    . 1900     99.5%    100.0%",
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
    classes = tuple(ClassMetrics(label, 50, None, None) for label in "0123456789")
    digits = replace(EVALUATION, labels=tuple("0123456789"), confusion=confusion, classes=classes)
    lines = str(digits).splitlines()
    assert lines[3] == "1.96% of the 3s and 5s taken for each other"


def test_many_classes_print_the_most_frequent_confusions() -> None:
    labels = tuple(f"class-{number}" for number in range(30))
    confusion = np.diag(np.full(30, 100))
    confusion[4, range(12)] += np.arange(12)
    lines = str(replace(EVALUATION, labels=labels, confusion=tuple(map(tuple, confusion.tolist())))).splitlines()
    assert lines[3:5] == ["most frequent confusions (true -> predicted)", "  class-4 -> class-11: 11"]
    assert len(lines) == 4 + 10


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/0 .. photos/2 with 3 digits of each, photos/eight with one, a text file and a broken image."""
    digits = load_dataset("digits", None).test
    for label in range(3):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.labels == label][:3]):
            PIL.Image.fromarray(pixels[..., 0]).save(folder / f"{number}.png")
    (tmp_path / "photos" / "eight").mkdir()
    PIL.Image.new("L", (8, 8)).save(tmp_path / "photos" / "eight" / "0.png")
    (tmp_path / "photos" / "notes.txt").write_text("about the photos")
    (tmp_path / "photos" / "1" / "broken.png").write_bytes(b"nothing")
    return tmp_path / "photos"


@pytest.mark.parametrize("training", [{}, training_on("digits"), training_on("mnist"), training_on("folder")])
def test_any_folder_of_labelled_images_is_measured(
    training: dict[str, object], tmp_path: Path, photos: Path, capsys: Captured
) -> None:
    digits = load_dataset("digits", None).test
    images = np.concatenate([digits.images[digits.labels == label][:3] for label in range(3)])
    folder = write_package(tmp_path / "tiny", training=training)
    with Predictor(folder) as predictor:
        predicted = predictor.predict_proba(images).argmax(axis=1)

    assert cli.main(["evaluate", str(folder), "--data-dir", str(photos), "--json"]) == 1  # an image is broken

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["images"] == 9
    assert found["folder"] == str(photos)
    assert found["equals_card"] is None
    assert np.array(found["confusion"]).sum(axis=0).tolist() == np.bincount(predicted, minlength=10).tolist()
    assert found["accuracy"] == np.mean(predicted == np.repeat(range(3), 3))
    assert found["unknown_labels"] == {"eight": 1}
    assert found["unreadable"] == 1
    assert {Path(each["path"]).name for each in found["left_out"]} == {"notes.txt", "broken.png"}
    assert [each["images"] for each in found["classes"]] == [3, 3, 3] + 7 * [0]
    assert found["classes"][9]["recall"] is None
    assert "eight (1 file)" in err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_network_that_computes_nan_is_exit_code_2(
    options: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "predict_proba", lambda _, images: np.full((len(images), 10), np.nan, np.float32))
    assert cli.main(["evaluate", str(write_package(tmp_path / "tiny")), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "tiny-grey computed NaN or infinity" in err


def test_names_of_folders_cannot_forge_lines(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    forged = tmp_path / "new\npdeinfer: all is well \x1b[8m"
    photos.rename(forged)
    (forged / "eight").rename(forged / "nine\npdeinfer: all is well \x1b[8m")
    cli.main(["evaluate", str(write_package(tmp_path / "tiny")), "--data-dir", str(forged)])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert not any(line.startswith("pdeinfer: all is well") for line in (out + err).splitlines())


def test_heic_photos_are_measured_and_shown(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    for path in photos.glob("0/*.png"):
        path.with_suffix(".heic").write_bytes(heic(PIL.Image.open(path), quality=-1))
        path.unlink()
    (photos / "1" / "broken.png").unlink()
    arguments = [str(write_package(tmp_path / "tiny", training={})), "--data-dir", str(photos), "--json"]
    assert cli.main(["evaluate", *arguments, "--report", str(tmp_path / "report")]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 9


def test_the_folder_test_of_a_data_set_is_measured(tmp_path: Path, photos: Path) -> None:
    for split, source in (("train", photos / "0"), ("test", photos / "2")):
        shutil.copytree(source, tmp_path / "splits" / split / source.name)
    found = evaluate(write_package(tmp_path / "tiny"), tmp_path / "splits")
    assert [each.label for each in found.classes if each.images] == ["2"]


def test_a_link_to_another_photo_is_not_measured(tmp_path: Path, photos: Path) -> None:
    folder = write_package(tmp_path / "tiny", training={})
    (file, *_) = sorted((photos / "0").iterdir())
    before = evaluate(folder, photos)
    (photos / "0" / "link.png").symlink_to(file)
    found = evaluate(folder, photos)
    assert found.images == before.images
    assert photos / "0" / "link.png" in [each.path for each in found.left_out]


def test_folders_of_labels_beside_the_folder_test_are_refused(tmp_path: Path, photos: Path) -> None:
    folder = write_package(tmp_path / "tiny", training={})
    shutil.copytree(photos / "2", photos / "test" / "2")
    with pytest.raises(DatasetError, match=r"got both: 0, 1, 2 and test"):
        evaluate(folder, photos)
    assert evaluate(folder, photos / "test").images == 3


def test_accents_may_be_composed_or_decomposed(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "cafe\u0301"
    folder.mkdir(parents=True)
    PIL.Image.new("L", (8, 8)).save(folder / "a.png")
    for label in ("caf\u00e9", "cafe\u0301"):
        found = find_labelled_files(tmp_path / "photos", ["tea", label])
        assert (found.files, found.unknown_labels) == (((folder / "a.png", 1),), {})


def test_names_that_are_not_utf_8_are_valid_json(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    strange = photos.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    (strange / "eight").rename(strange / os.fsdecode(b"th\xe9"))
    cli.main(["evaluate", str(write_package(tmp_path / "tiny", training={})), "--data-dir", str(strange), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert json.dumps(found, ensure_ascii=False).encode()
    assert (found["folder"], found["unknown_labels"]) == (rf"{tmp_path}/caf\udce9", {r"th\udce9": 1})
    paths = [each["path"] for each in found["left_out"]]
    paths += [each["image"] for each in (*found["mistakes"], *found["confident"])]
    assert len(paths) == 11
    assert all(rf"{tmp_path}/caf\udce9/" in path for path in paths)


def test_a_folder_without_known_labels_is_an_error_that_names_both(tmp_path: Path, photos: Path) -> None:
    folder = write_package(tmp_path / "tiny", training={})
    for label in "012":
        (photos / label).rename(photos / f"number-{label}")
    with pytest.raises(DatasetError, match=r"0, 1, 2.*got the folders eight, number-0"):
        evaluate(folder, photos)
    with pytest.raises(DatasetError, match="expected a folder of images"):
        evaluate(folder, photos / "missing")


@pytest.mark.parametrize("name", ["seven", "missing"])
def test_a_folder_of_others_is_not_taken_for_the_digits(tmp_path: Path, name: str) -> None:
    package = write_package(tmp_path / "package")
    (tmp_path / "photos" / "seven").mkdir(parents=True)
    PIL.Image.new("L", (8, 8)).save(tmp_path / "photos" / "seven" / "7.png")
    folder = tmp_path / ("photos" if name == "seven" else name)

    with pytest.raises(DatasetError, match=name):
        evaluate(package, folder)


def test_a_folder_without_readable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos" / "0").mkdir(parents=True)
    (tmp_path / "photos" / "0" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="no image can be read"):
        evaluate(write_package(tmp_path / "tiny"), tmp_path / "photos")


def test_images_are_held_in_memory_some_at_a_time(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_package(tmp_path / "tiny")
    expected = evaluate(folder, photos)
    monkeypatch.setattr(measuring, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(measuring, "Predictor", partial(Predictor, batch_size=2))
    read = []
    monkeypatch.setattr(
        FileImages, "read", lambda self, part, read_all=FileImages.read: read.append(len(part)) or read_all(self, part)
    )
    found = evaluate(folder, photos)
    assert read == [2, 2, 2, 2, 2]
    assert found.confusion == expected.confusion
    assert found.mistakes == expected.mistakes


def test_examples_are_the_most_probable_first(tmp_path: Path) -> None:
    found = evaluate(write_package(tmp_path / "tiny"))
    test = load_dataset("digits", None).test
    with Predictor(tmp_path / "tiny") as predictor:
        probabilities = predictor.predict_proba(test.images)
    predicted, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    for examples, chosen in ((found.mistakes, predicted != test.labels), (found.confident, predicted == test.labels)):
        assert [each.score for each in examples] == sorted(scores[chosen].tolist(), reverse=True)[:24]
        assert all(found.labels[predicted[each.index]] == each.predicted for each in examples)
        assert all(found.labels[test.labels[each.index]] == each.label for each in examples)


def test_without_scikit_learn_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_package(tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingDependencyError, match="pip install scikit-learn"):
        evaluate(folder)


def test_the_report_is_one_file_without_scripts_or_links(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    folder = write_package(tmp_path / "tiny")
    (photos / "0" / "0.png").rename(photos / "0" / "<script>&.png")
    arguments = ["evaluate", str(folder), "--data-dir", str(photos), "--report", str(tmp_path / "new" / "report")]
    assert cli.main(arguments) == 1  # an image is broken
    assert str(tmp_path / "new" / "report" / "index.html") in capsys.readouterr().err
    (file,) = (tmp_path / "new" / "report").iterdir()
    page = file.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in re.sub(r'http-equiv="', "", page)
    assert "{{" not in page
    assert "&lt;script&gt;&amp;.png" in page
    assert page.count("<img ") == 9
    pictures = re.findall(r"data:image/\w+;base64,([^\"]*)", page)
    assert {PIL.Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures} == {(128, 128)}
    assert "eight (1 file)" in page
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in page  # else browsers ignore it


def test_a_report_among_the_photos_is_refused_before_the_work(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    arguments = ["evaluate", str(write_package(tmp_path / "tiny")), "--data-dir", str(photos)]
    assert cli.main([*arguments, "--report", str(photos / "new" / "report")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "expected --report outside --data-dir" in err
    assert not (photos / "new").exists()


def test_a_report_in_a_missing_folder_of_photos_names_the_folder(tmp_path: Path, capsys: Captured) -> None:
    missing = tmp_path / "missing"
    for report in (tmp_path / "report", missing / "report"):
        assert cli.main(["evaluate", "digits-pde", "--data-dir", str(missing), "--report", str(report)]) == 2
        err = capsys.readouterr().err
        assert "Errno" not in err
        assert "expected" in err


def test_the_report_is_written_although_nobody_reads_the_output(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", fail)
    arguments = [str(write_package(tmp_path / "tiny", training={})), "--data-dir", str(photos)]
    assert cli.main(["evaluate", *arguments, "--report", str(tmp_path / "report")]) == 1
    assert (tmp_path / "report" / "index.html").exists()


def test_a_report_beside_the_files_of_a_standard_data_set_is_none_of_its_classes(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "train-images-idx3-ubyte").touch()
    arguments = ["evaluate", "mnist-pde", "--data-dir", str(tmp_path), "--report", str(tmp_path / "report")]
    assert cli.main(arguments) == 2
    assert "--report" not in capsys.readouterr().err


@pytest.mark.parametrize("files", [1, 5])
def test_the_report_counts_the_files_in_folders_that_are_left_out(tmp_path: Path, photos: Path, files: int) -> None:
    (photos / "notes.txt").unlink()
    (photos / "1" / "broken.png").unlink()
    (photos / "1" / "more").mkdir()
    for number in range(files):
        (photos / "1" / "more" / f"{number}.png").write_bytes(b"")
    page = report_html(evaluate(write_package(tmp_path / "tiny"), photos))
    assert f"{files} file{'s' if files > 1 else ''} not classified: {photos / '1' / 'more'}: " in page


def test_the_report_shows_images_of_a_data_set(tmp_path: Path) -> None:
    found = evaluate(write_package(tmp_path / "tiny"))
    (first, *_) = re.findall(r"data:image/png;base64,([^\"]*)", report_html(found))
    pixels = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(first))))
    assert np.array_equal(pixels, load_dataset("digits", None).test.images[found.mistakes[0].index][..., 0])


def test_many_classes_have_their_confusions_listed_in_the_report() -> None:
    labels = tuple(f"class-{number}" for number in range(50))
    confusion = np.diag(np.full(50, 100))
    confusion[4, 11] = 77
    evaluation = replace(
        EVALUATION,
        labels=labels,
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration=Calibration(0.0, (ConfidenceBin(5077, 1.0, 1.0),)),
    )
    assert "<td>class-4</td><td>class-11</td><td>77</td>" in report_html(evaluation)
