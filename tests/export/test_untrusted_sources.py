"""Exporting foreign or edited files fails with one line that names the file, and writes nothing."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdeinfer import PRESETS, ExportError
from pdeinfer.cli.main import main
from pdeinfer.export import export_package
from pdeinfer.package import zoo

DIGITS = PRESETS["digits-pde"]


def not_a_zip(path: Path) -> None:
    path.write_bytes(b"not a zip file")


def lambda_layer(path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(path)


def plain_keras(path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(path)


def compressed(path: Path, damage: Callable[[bytearray, int], None]) -> None:
    """Write a network, its members compressed, and damage the entry of config.json, at the place given."""
    with zipfile.ZipFile(zoo.load("digits-pde").path / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    damaged = bytearray(path.read_bytes())
    damage(damaged, damaged.rindex(b"config.json") - 46)  # in the directory at the end
    path.write_bytes(damaged)


def encrypted(path: Path) -> None:
    def damage(content: bytearray, entry: int) -> None:
        content[entry + 8] |= 1

    compressed(path, damage)


def compressed_in_an_unknown_way(path: Path) -> None:
    def damage(content: bytearray, entry: int) -> None:
        content[entry + 10] = 99

    compressed(path, damage)


def damaged_within(path: Path) -> None:
    def damage(content: bytearray, _: int) -> None:
        start = content.index(b"config.json") + len(b"config.json")
        content[start : start + 20] = b"\xff" * 20

    compressed(path, damage)


def edited(path: Path, edit: Callable[[dict[str, Any]], None], source: Path) -> None:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                edit(config)
                content = json.dumps(config).encode()
            changed.writestr(name, content)


@pytest.mark.parametrize(
    "make", [not_a_zip, lambda_layer, plain_keras, encrypted, compressed_in_an_unknown_way, damaged_within]
)
def test_a_foreign_file_is_exit_code_2(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "foreign.keras"
    make(source)
    assert main(["export", str(source), "--output", str(tmp_path / "package")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "foreign.keras: expected a .keras file that" in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["foreign.keras"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda config: config.update(module="builtins", class_name="eval"), "got ('builtins', 'eval', "),
        (lambda config: config.update(registered_name="pdeinfer>GlobalLayer"), "'Classifier', 'pdeinfer>GlobalLayer')"),
        (lambda config: config["config"]["preset"].update(labels=["one"]), "labels must be at least two"),
        (lambda config: config["config"]["preset"]["network"].update(widths=[4, 8]), "cannot be loaded"),
        (lambda config: config["config"].pop("preset"), "cannot be loaded"),
    ],
)
def test_an_edited_file_is_refused(
    edit: Callable[[dict[str, Any]], None], message: str, saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    source = tmp_path / "edited.keras"
    edited(source, edit, saved_network(DIGITS))
    with pytest.raises(ExportError) as caught:
        export_package(source, tmp_path / "package")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["edited.keras"]


@pytest.mark.parametrize(
    "record",
    [{"name": "mine"}, {"recipe": None}, {"recipe": {"dataset": "imagenet"}, "seed": 0, "precision": "float32"}],
)
def test_another_run_json_is_refused(
    record: dict[str, Any], saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    source = Path(shutil.copy(saved_network(DIGITS), tmp_path))
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ExportError, match=r"run\.json: not the record of a training: "):
        export_package(source, tmp_path / "package")
