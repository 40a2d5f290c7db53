"""The folder that a training goes to if its arguments name none: a new one's, and the same for its resumption."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pdeinfer.spec.presets import PRESETS
from tests.conftest import write_tiny_package
from training.arguments import parse_arguments


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "digits-pde"),
        (["mnist-pde"], "mnist-pde"),
        (["--name", "mine"], "mine"),
        (["PHOTOS"], "photos-global"),
        (["PHOTOS", "--name", "mine"], "mine"),
        (["mnist-pde", "--data-dir", "PHOTOS", "--image-size", "64"], "photos-pde"),
        (["--data-dir", "PHOTOS", "--image-size", "64"], "photos-pde"),
    ],
)
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["new", "resumed"])
def test_a_training_goes_to_the_folder_of_its_name(
    arguments: list[str], name: str, resume: list[str], photos: Path
) -> None:
    given = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert parse_arguments([*given, *resume]).out == Path("runs") / name


def test_a_package_and_a_preset_s_file_give_the_names_that_they_state(photos: Path, tmp_path: Path) -> None:
    preset = replace(PRESETS["mnist-pde"], name="cats-small")
    package = write_tiny_package(tmp_path / "v2", preset)
    file = tmp_path / "net.json"
    file.write_text(json.dumps(preset.to_dict()))
    assert parse_arguments([str(photos), "--init", str(package)]).out == Path("runs/photos-small")
    assert parse_arguments([str(photos), "--preset-file", str(file)]).out == Path("runs/photos-small")
    assert parse_arguments(["--preset-file", str(file)]).out == Path("runs/cats-small")


@pytest.mark.parametrize(
    "arguments",
    [
        ["."],
        ["--data-dir", ".", "--image-size", "8"],
        ["mnist-pde", "--data-dir", ".", "--image-size", "8", "--resume"],
        ["../photos", "--out", "cat/run"],
        ["../photos", "--out", "."],
        [".", "--out", "../link/run"],
    ],
)
def test_a_training_is_refused_whose_folder_would_be_a_class_of_the_photos(
    arguments: list[str], photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    photos.with_name("link").symlink_to(photos)
    with pytest.raises(SystemExit) as stop:
        parse_arguments(arguments)
    assert stop.value.code == 2
    assert "expected --out outside the folder of photos" in capsys.readouterr().err
    assert parse_arguments([".", "--out", "../photos-run"]).out == Path("../photos-run")


def test_a_training_as_the_model_to_start_from_names_the_export(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit):
        parse_arguments([str(photos), "--init", str(tmp_path)])
    assert f"pdeinfer export {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["x" * 300], ["PHOTOS", "--init", "no-such-model"], ["--preset-file", "no-such-file"]]
)
def test_a_path_that_names_nothing_ends_with_exit_code_2(
    arguments: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_arguments([str(photos) if argument == "PHOTOS" else argument for argument in arguments])
    assert stop.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
