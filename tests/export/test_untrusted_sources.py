"""Exporting foreign or edited files fails with one line that names the file, and writes nothing."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer import PRESETS, ExportError, ModelPackage, ModelPackageError, Preset
from pdeinfer.cli.main import main
from pdeinfer.export import export_package, verify_package
from pdeinfer.export.original import load_original
from pdeinfer.package import zoo
from pdeinfer.package.writing import write_card
from pdeinfer.spec.networks import DepthwiseConvolution, DepthwiseSum, ResidualNetwork, SingleChannelNetwork

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
        (lambda config: config["config"].pop("preset"), "cannot be loaded: its configuration has no preset"),
        (lambda config: config["config"].update(preset=["digits"]), "cannot be loaded"),
        (lambda config: config.update(config=None), "cannot be loaded"),
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
    "network",
    [
        ResidualNetwork(widths=(8, 60000)),
        ResidualNetwork(widths=(8,), blocks_per_stage=10**9),
        ResidualNetwork(widths=(8, 16), control=DepthwiseConvolution(10**5)),
        ResidualNetwork(widths=(8, 16), control=DepthwiseSum(3, num_terms=10**6)),
        SingleChannelNetwork("conv", pool_size=1),
    ],
)
def test_a_network_larger_than_its_weights_is_refused_before_keras_builds_it(
    network: Any, saved_network: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def edit(config: dict[str, Any]) -> None:
        preset = config["config"]["preset"]
        preset.update(network=replace(DIGITS, network=network).to_dict()["network"])
        preset["input"].update(height=2000, width=2000)

    source = tmp_path / "bomb.keras"
    edited(source, edit, saved_network(DIGITS))
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(ExportError, match=r"bomb\.keras: .*bytes of weights for the network"):
        export_package(source, tmp_path / "package")


def test_the_size_that_an_archive_states_is_not_believed(saved_network: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "bomb.keras"
    edited(source, lambda config: config["config"]["preset"]["network"].update(widths=[8, 2000]), saved_network(DIGITS))
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] += bytes(200 << 20)
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ExportError, match="bytes of weights for the network"):
        load_original(source)


@pytest.mark.parametrize("preset", [zoo.load(name).card.preset for name in zoo.names()], ids=zoo.names())
def test_the_weights_that_a_network_needs_are_no_more_than_it_has(preset: Preset) -> None:
    from pdeinfer.nn import loading

    parameters = zoo.load(preset.name).card.parameters
    assert 0.8 * parameters < loading._fewest_weights(preset) <= parameters


def test_a_network_of_another_preset_than_the_card_s_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
    (folder / "model.keras").unlink()

    def edit(config: dict[str, Any]) -> None:
        config["config"]["preset"]["network"]["widths"] = [8, 15]

    edited(folder / "model.keras", edit, zoo.load("digits-pde").path / "model.keras")
    write_card(folder, ModelPackage.read(folder).card)
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(ModelPackageError, match="preset in the card"):
        verify_package(ModelPackage.read(folder))


def test_an_error_of_keras_is_told_without_its_warnings(
    saved_network: Callable[..., Path], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["config"]["preset"]["network"]["widths"] = [8, 15]

    edited(tmp_path / "edited.keras", edit, saved_network(DIGITS))
    with pytest.raises(ExportError, match=r"cannot be loaded: .*[^:]$"):
        export_package(tmp_path / "edited.keras", tmp_path / "package")
    assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []


RECORD = {"recipe": {"dataset": "digits"}, "seed": 0, "precision": "float32"}


@pytest.mark.parametrize(
    "record",
    [{"name": "mine"}, {"recipe": None}, {"recipe": {"dataset": "imagenet"}, "seed": 0, "precision": "float32"}],
)
def test_another_run_json_in_the_folder_of_a_training_is_refused(
    record: dict[str, Any], saved_network: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(saved_network(DIGITS), tmp_path / "run" / "model.keras")
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ExportError, match=r"run\.json: not the record of a training: "):
        export_package(tmp_path / "run", tmp_path / "package")


@pytest.mark.parametrize(
    ("file", "content", "is_ignored"),
    [
        ("run.json", {"name": "mine"}, True),
        ("metrics.json", [0.5, 0.6], True),
        ("run.json", {**RECORD, "preset": "mnist-pde"}, True),
        ("run.json", {**RECORD, "preset": "digits-pde"}, False),
        ("run.json", {**RECORD, "preset": "digits-pde", "classifier": PRESETS["mnist-pde"].to_dict()}, True),
        ("run.json", {**RECORD, "preset": "digits-pde", "classifier": DIGITS.to_dict()}, False),
    ],
)
def test_a_record_beside_a_file_is_taken_only_if_it_describes_the_network(
    file: str,
    content: Any,
    is_ignored: bool,
    saved_network: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Path(shutil.copy(saved_network(DIGITS), tmp_path))
    (tmp_path / file).write_text(json.dumps(content))
    assert (load_original(source).record is None) == is_ignored
    assert [record.getMessage().startswith(f"ignored: {tmp_path / file}: ") for record in caplog.records] == (
        [True] * is_ignored
    )
