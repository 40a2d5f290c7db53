"""Bundled models are loaded by name, other packages by the path of their folder."""

from pathlib import Path

import pytest

from pdeinfer.errors import ModelNotFoundError, ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE
from tests.conftest import GREY_PRESET, RGB_PRESET, write_tiny_package


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the bundled models "a" and "b", and a folder that is not a model."""
    models = tmp_path / "models"
    write_tiny_package(models / "b", GREY_PRESET)
    write_tiny_package(models / "a", RGB_PRESET)
    (models / "__pycache__").mkdir()
    monkeypatch.setattr(zoo, "_MODELS", models)
    return models


def test_the_default_model_is_named_first(bundled: Path) -> None:
    assert zoo.names() == ("a", "b")
    write_tiny_package(bundled / zoo.DEFAULT_MODEL, GREY_PRESET)
    assert zoo.names() == (zoo.DEFAULT_MODEL, "a", "b")


def test_a_bundled_model_is_loaded_by_name(bundled: Path) -> None:
    assert zoo.load("a").path == bundled / "a"
    assert zoo.load("a").card.preset == RGB_PRESET


def test_a_folder_is_loaded_by_path(bundled: Path, package_folder: Path) -> None:
    for path in (package_folder, str(package_folder), bundled / "b"):
        assert zoo.load(path).card.preset == GREY_PRESET


def test_a_spelling_means_the_same_as_a_string_and_as_a_path(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_package(tmp_path / "here" / "a", GREY_PRESET)
    monkeypatch.chdir(tmp_path / "here")
    for bundled_model in ("a", Path("a"), Path("./a")):
        assert zoo.load(bundled_model).path == bundled / "a"
    for in_folder in ("./a", zoo.unambiguous_path("a"), zoo.unambiguous_path(Path("a")), str(folder), folder):
        assert zoo.load(in_folder).path.resolve() == folder


@pytest.mark.parametrize("path", ["build/a", "other", "./a"])
@pytest.mark.usefixtures("bundled")
def test_a_path_that_is_no_bundled_name_is_spelled_as_it_is(path: str) -> None:
    assert zoo.unambiguous_path(path) == path


def test_a_package_is_found_again_by_its_reference_from_another_folder(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_package(tmp_path / "here" / "a", GREY_PRESET)
    monkeypatch.chdir(tmp_path / "here")
    references = [zoo.reference_to(zoo.load(model)) for model in ("a", "./a")]
    monkeypatch.chdir(tmp_path)
    assert references[0] == "a"
    assert [zoo.load(model).path for model in references] == [bundled / "a", tmp_path / "here" / "a"]


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("name", ["c", "", "../models", "__pycache__", "a/../x", "a" * 300])
def test_an_unknown_name_lists_the_bundled_ones(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"'{name}'.*a, b"):
        zoo.load(name)


def test_without_bundled_models_every_name_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_MODELS", tmp_path / "none")
    with pytest.raises(ModelNotFoundError, match="'digits-pde'"):
        zoo.load("digits-pde")


def test_a_damaged_card_is_a_model_package_error(bundled: Path) -> None:
    (bundled / "a" / CARD_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(ModelPackageError, match=str(bundled / "a" / CARD_FILE)):
        zoo.load("a")


@pytest.mark.parametrize("name", zoo.names())
def test_bundled_models_are_intact_and_have_the_names_of_their_folders(name: str) -> None:
    package = zoo.load(name)
    package.verify_checksums()
    assert package.card.preset.name == name
