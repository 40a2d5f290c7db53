"""Training on a folder of images: what it records, how it resumes and exports, what it refuses."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.checks.measuring import evaluate
from pdeinfer.cli import main as cli
from pdeinfer.datasets import find_images, load_validation_split
from pdeinfer.errors import ExportError
from pdeinfer.export.original import check_output, load_original
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.predictor import Predictor
from pdeinfer.spec.networks import SingleChannelNetwork
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import TrainingRecord
from training import run, storage
from training.image_folder import VALIDATION_FRACTION, adapt_preset, channel_statistics, summarize

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark images of several sizes and formats, 15 of each, with a broken one and one of no image's name."""
    folder = tmp_path_factory.mktemp("data") / "My photos"
    rng = np.random.default_rng(0)
    for label, brightness in (("bright", 200), ("dark", 20)):
        (folder / label).mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(brightness, brightness + 50, (8 + number, 14, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / label / f"{number:02}.{('png', 'jpg', 'webp')[number % 3]}")
    (folder / "dark" / "broken.jpg").write_bytes(b"x")
    (folder / "dark" / "notes.txt").write_text("x")
    return folder


def train(photos: Path, out: Path, *arguments: object) -> int:
    options = ["--data-dir", photos, "--image-size", "8x10", "--epochs", 3, "--batch-size", 4, "--out", out, *arguments]
    return run.main(["digits-pde", *map(str, options)])


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of three epochs on the photos, 8x10 pixels."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train(photos, folder) == 0
    return folder


@pytest.fixture(scope="module")
def package(finished: Path) -> Path:
    """The model package of the finished training."""
    folder = finished.with_name("package")
    assert cli.main(["export", str(finished), "--output", str(folder)]) == 0
    return folder


def test_the_run_records_its_preset_and_its_images(finished: Path, photos: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    preset = Preset.from_dict(record["classifier"])
    assert record["preset"] == "digits-pde"
    assert preset.name == "My-photos-pde"
    assert preset.labels == ("bright", "dark")
    assert preset.network == PRESETS["digits-pde"].network
    assert (preset.input.height, preset.input.width, preset.input.channels) == (8, 10, 1)
    dataset, _ = find_images(photos, VALIDATION_FRACTION).read(preset.input)
    assert preset.input.mean[0] == pytest.approx(dataset.train.images.mean() / 255, abs=1e-4)
    assert preset.input.std[0] == pytest.approx(dataset.train.images.std() / 255, abs=1e-4)
    assert record["recipe"]["dataset"] == "folder"
    assert record["images"]["unreadable"] == 1
    assert sum(split["files"] for split in record["images"]["splits"].values()) == 31
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test_images"] == np.sum(metrics["confusion"]) == len(dataset.test)
    assert len(metrics["confusion"]) == 2


def test_the_package_is_proven_and_evaluated_on_the_test_images(package: Path, photos: Path, tmp_path: Path) -> None:
    card = ModelPackage.read(package).card
    reports = [report for name, report in card.parity.items() if name.startswith("model.onnx")]
    assert reports
    assert all("test images" in {row["images"] for row in report["comparisons"]} for report in reports)
    assert not {"data_dir", "init_dir", "classifier"} & card.training.keys()
    evaluation = evaluate(package, photos)
    assert evaluation.equals_card is True
    assert evaluation.labels == ("bright", "dark")
    assert evaluation.folder is None
    others = Path(shutil.copytree(photos, tmp_path / "others"))  # numbered alike
    for file in (others / "bright").iterdir():
        shutil.copyfile(photos / "dark" / file.name, file)
    evaluation = evaluate(package, others)
    assert (evaluation.folder, evaluation.images) == (str(others), 30)
    with Predictor(package) as predictor:
        assert predictor.predict(photos / "dark" / "00.png").label in evaluation.labels


def test_resuming_needs_only_the_folder(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    (folder / "metrics.json").unlink()
    assert run.main(["digits-pde", "--out", str(folder), "--resume"]) == 0
    assert (folder / "metrics.json").read_text() == (finished / "metrics.json").read_text()


def test_photos_that_have_moved_are_found_where_they_are_named(finished: Path, photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    for name in ("run.json", "metrics.json"):
        record = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**record, "data_dir": "/not/there"}))
    assert load_original(folder).test is None
    original = load_original(folder, moved)
    assert original.test is not None
    assert original.data_dir == moved
    assert run.main([str(moved), "--out", str(folder), "--resume"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["data_dir"] == str(moved)
    assert load_original(folder).test is not None
    with pytest.raises(ExportError, match="outside the folder of photos"):
        check_output(folder, moved / "package")


def test_a_start_from_a_model_with_other_splits_is_warned_of(
    package: Path, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    too_large = ["--batch-size", 1000]  # ends before the training
    assert train(photos, tmp_path / "run", "--init", package, *too_large) == 2
    assert "warning" not in capsys.readouterr().err
    older = Path(shutil.copytree(package, tmp_path / "older"))
    card = ModelPackage.read(older).card
    images = {name: value for name, value in card.training["images"].items() if name != "split_method"}
    write_card(older, replace(card, training={**card.training, "images": images}))
    for option in ("--init", "--teacher"):
        assert train(photos, tmp_path / "run", option, older, *too_large) == 2
        assert "pdeinfer: warning: My-photos-pde was trained with test images that were" in capsys.readouterr().err


def test_names_of_folders_and_files_cannot_forge_lines(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "photos \x1b[8m"
    for label in ("cat", "dog\x1b[8m\nforged"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            (folder / label / f"{number}\x1b[8m.jpg").write_bytes(b"not decoded: labels are refused before")
    assert run.main([str(folder), "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\nforged" not in out + err
    (line,) = err.splitlines()
    assert "labels must be of printable characters" in line
    assert "\x1b" not in summarize(find_images(folder), [(8, 8)])[0]


def test_unreadable_images_are_named_and_counted_on_stderr(photos: Path, tmp_path: Path, capsys: Captured) -> None:
    assert train(photos, tmp_path / "run", "--batch-size", 1000) == 2
    first, second, third, fourth, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"pdeinfer: left out: {photos / 'dark' / 'broken.jpg'}: expected a BMP")
    assert second == "pdeinfer: 1 of 31 images cannot be read and are left out"
    assert third.startswith(f"pdeinfer: left out: {photos}")
    assert fourth == "pdeinfer: files left out in all: 1"
    assert last.startswith("pdeinfer: error: a batch of 1000 is larger than the 18 training images")


def test_a_changed_folder_or_size_is_not_resumed(
    finished: Path, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert train(photos, finished, "--resume", "--image-size", "8") == 2
    assert "was started with image_size (8, 10), and cannot resume with (8, 8)" in capsys.readouterr().err
    changed = Path(shutil.copytree(photos, tmp_path / "changed"))
    (changed / "dark" / "00.png").unlink()
    assert train(changed, finished, "--resume") == 2
    assert "changed: its files are not those that" in capsys.readouterr().err
    repaired = Path(shutil.copytree(photos, tmp_path / "repaired"))
    shutil.copyfile(repaired / "dark" / "00.png", repaired / "dark" / "broken.jpg")
    assert train(repaired, finished, "--resume") == 2
    assert "repaired: its files are not those that" in capsys.readouterr().err
    earlier = Path(shutil.copytree(finished, tmp_path / "earlier"))
    record = json.loads((earlier / "run.json").read_text())
    for split in record["images"]["splits"].values():
        del split["contents_sha256"]
    (earlier / "run.json").write_text(json.dumps(record))
    assert train(repaired, earlier, "--resume") == 2
    assert "0 images cannot be read, and 1 could not" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["digits-pde", "mnist-pde"])
def test_a_folder_of_images_without_a_size_names_the_option(
    preset: str, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert run.main([preset, "--data-dir", str(photos), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("--image-size N trains on a folder of your own images")
    assert not (tmp_path / "run").exists()


def test_photos_are_not_shifted_by_their_shorter_side(photos: Path, tmp_path: Path, capsys: Captured) -> None:
    assert train(photos, tmp_path / "run", "--crop-padding", 8) == 2  # 8x10 pixels
    assert "--crop-padding: expected less than 8, the shorter side of the images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [["--image-size", "8"], ["--image-size", "8x"], ["--image-size", "0"]])
def test_a_size_needs_a_folder_and_positive_numbers(options: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(options)
    assert stop.value.code == 2


def test_a_training_starts_from_a_model_and_refuses_another_on_resuming(
    package: Path, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "run"
    assert train(photos, folder, "--init", package) == 0
    output = capsys.readouterr().out
    assert re.search(r"^copied (\d,\d+) of \1 weights from My-photos-pde; no layer is random$", output, re.MULTILINE)
    record = json.loads((folder / "run.json").read_text())
    checksum = ModelPackage.read(package).card.files["model.keras"].sha256
    assert record["init"] == {"model": "My-photos-pde", "sha256": checksum}

    for name in (f"last-{record['recipe']['epochs']}.keras", "history.csv"):
        (folder / name).unlink()  # as if it had been interrupted in its first epoch
    record["init"]["sha256"] = "0" * 64
    (folder / "run.json").write_text(json.dumps(record))
    assert run.main(["digits-pde", "--out", str(folder), "--resume"]) == 2
    assert "is not the model that the training was started with" in capsys.readouterr().err


def test_starting_from_another_kind_of_network_is_an_error(photos: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "run"
    assert train(photos, folder, "--init", "mnist-pde") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pdeinfer: error: digits-pde cannot start from mnist-pde: expected ResidualNetwork(")
    assert not folder.exists()


def test_channel_statistics_cover_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1234, 3, 5, 3), dtype=np.uint8)
    images[..., 1] //= 4
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, atol=5e-5)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255, atol=5e-5)


def test_a_channel_of_one_value_keeps_its_scale() -> None:
    images = np.zeros((10, 32, 32, 3), np.uint8)
    images[..., 1] = np.arange(32)
    preset = adapt_preset(PRESETS["cifar10-global"], "green", images)
    assert preset.input.mean[0::2] == (0.0, 0.0)
    assert preset.input.std == (1.0, pytest.approx(images[..., 1].std() / 255, abs=5e-5), 1.0)


@pytest.fixture(scope="module")
def small_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a preset whose network is quickly traced, for grey images of 8x8 pixels."""
    file = tmp_path_factory.mktemp("presets") / "small.json"
    preset = replace(PRESETS["digits-pde"], name="small-net", network=SingleChannelNetwork("conv"))
    file.write_text(json.dumps(preset.to_dict()))
    return file


def test_a_folder_as_source_needs_no_option(
    photos: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main([str(photos), "--epochs", "1"]) == 0  # the one option only saves time
    output = capsys.readouterr().out
    assert f"{photos}: 31 images of 2 classes, 14x8 to 14x22 pixels" in output
    assert re.search(r"^  dark +8 +3 +5$", output, re.MULTILINE)
    assert re.search(r"^  --epochs +1 +as given$", output, re.MULTILINE)
    assert re.search(r"^copied \d+,\d+ of \d+,\d+ weights from cifar10-global; random: logits$", output, re.MULTILINE)
    folder = Path("runs/My-photos-global")
    assert f"pdeinfer export {folder} --output build/My-photos-global" in output
    record = json.loads((folder / "run.json").read_text())
    trained = ModelPackage.read(zoo.load("cifar10-global").path).card.preset
    preset = Preset.from_dict(record["classifier"])
    assert preset.network == trained.network
    assert (preset.input.height, preset.input.width) == (32, 32)
    assert {name: record["recipe"][name] for name in ("batch_size", "epochs", "crop_padding", "flip", "balance")} == {
        "batch_size": 8,
        "epochs": 1,
        "crop_padding": 4,
        "flip": True,
        "balance": False,
    }
    assert record["images"]["splits"].keys() == {"train", "val", "test"}
    validation = load_validation_split(TrainingRecord.from_dict(record), preset, photos)
    assert set(validation.labels.tolist()) == {0, 1}
    (folder / "metrics.json").unlink()
    assert run.main(["--out", str(folder), "--resume"]) == 0
    assert (folder / "metrics.json").exists()


def test_options_override_the_choices_and_resuming_compares_them(
    photos: Path, small_preset: Path, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "run"
    options = ["--lr", "0.02", "--no-flip", "--crop-padding", "0", "--mixup", "0.1", "--balance", "--patience", "2"]
    start = [str(photos), "--preset-file", str(small_preset), "--epochs", "30", "--name", "mine", "--out", str(folder)]
    assert run.main([*start, "--batch-size", "4", *options]) == 0
    record = json.loads((folder / "metrics.json").read_text())
    assert record["preset"] == "small-net"
    assert record["classifier"]["name"] == "mine"
    expected = {"learning_rate": 0.02, "flip": False, "crop_padding": 0, "mixup": 0.1, "balance": True, "patience": 2}
    assert {name: record["recipe"][name] for name in expected} == expected
    rows = (folder / "history.csv").read_text().splitlines()[1:]
    assert len(rows) < 30  # two kinds of images are told apart at once: the accuracy cannot rise for long
    stopped = f"\n--patience 2 stopped the training after {len(rows)} of 30 epochs\n"
    assert stopped in capsys.readouterr().out
    before = (folder / "history.csv").read_bytes()
    (folder / "metrics.json").unlink()
    assert run.main(["--out", str(folder), "--resume", "--patience", "2"]) == 0
    assert (folder / "history.csv").read_bytes() == before  # it had stopped
    capsys.readouterr()
    assert run.main(["--out", str(folder), "--resume", "--lr", "0.01"]) == 2
    assert "was started with learning_rate 0.02, and cannot resume with 0.01" in capsys.readouterr().err


def test_photos_have_a_folder_for_validation_not_a_fraction(photos: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        run.main([str(photos), "--validation-fraction", "0.2"])
    assert "put validation images of your own into photos/val" in capsys.readouterr().err


def test_a_file_describes_the_network_for_a_standard_data_set(small_preset: Path, tmp_path: Path) -> None:
    assert run.main(["--preset-file", str(small_preset), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["recipe"]["dataset"] == "digits"
    assert metrics["test_images"] == 359


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-folder"],
        ["digits-pde", "--preset-file", "net.json"],
        [".", "--data-dir", "."],
        ["--device", "tpu"],
        ["--callback", "nothing"],
        ["--callback", ".tracking:make"],
        ["--lr", "0"],
        ["--name", "a/b"],
    ],
)
def test_arguments_that_make_no_sense_end_with_exit_code_2(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_images_that_would_fill_the_memory_are_trained_on_from_a_file(
    photos: Path, small_preset: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = []
    for name, memory in (("memory", 10**9), ("file", 1_000)):
        monkeypatch.setattr(storage, "memory_bytes", lambda memory=memory: memory)
        folder = tmp_path / name
        arguments = [str(photos), "--preset-file", str(small_preset), "--epochs", "2", "--out", str(folder)]
        assert run.main(arguments) == 0
        assert ("go to a file" in capsys.readouterr().out) == (name == "file")
        rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
        histories.append([(row["loss"], row["val_accuracy"]) for row in rows])
    assert histories[0] == histories[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "memory"]
