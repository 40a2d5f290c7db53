"""Model packages: what is read is what was written, damage is found, and nothing is ever half there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ModelPackageError
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.package import MAX_CARD_BYTES, ONNX_FILE, ModelPackage, new_package, write_card
from tests.unit.packages import CARD, change_card, fill, names_in


class TestFiles:
    """What is loaded is what was checked."""

    def test_an_intact_package_passes_and_gives_its_bytes(self, package: Path) -> None:
        read = ModelPackage.read(package)
        read.verify_checksums()
        assert read.read_file(ONNX_FILE) == (package / ONNX_FILE).read_bytes()

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (
                lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
                "SHA-256 [0-9a-f]{64} expected",
            ),
            (lambda content: content[:-1], r"\d+ bytes expected, \d+ found"),
            (lambda content: content + b"x", r"\d+ bytes expected, \d+ found"),
            (lambda _: b"", r"\d+ bytes expected, 0 found"),
        ],
    )
    def test_a_changed_file_is_refused(self, package: Path, damage: Callable[[bytes], bytes], problem: str) -> None:
        path = package / ONNX_FILE
        path.write_bytes(damage(path.read_bytes()))
        read = ModelPackage.read(package)
        for check in (lambda: read.read_file(ONNX_FILE), read.verify_checksums):
            with pytest.raises(ModelPackageError, match=f"{path} is damaged: {problem}"):
                check()

    def test_a_size_beyond_every_memory_is_another_than_the_files(self, package: Path) -> None:
        change_card(package, lambda card: card["files"][ONNX_FILE].update(bytes=2**63))
        with pytest.raises(ModelPackageError, match=rf"{2**63} bytes expected, \d+ found"):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_missing_file_is_refused(self, package: Path) -> None:
        (package / ONNX_FILE).unlink()
        with pytest.raises(ModelPackageError, match=f"{package / ONNX_FILE} cannot be read: No such file"):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_folder_in_a_files_place_is_refused(self, package: Path) -> None:
        (package / ONNX_FILE).unlink()
        (package / ONNX_FILE).mkdir()
        with pytest.raises(ModelPackageError, match="cannot be read: Is a directory"):
            ModelPackage.read(package).verify_checksums()

    def test_a_file_that_the_card_does_not_list_is_not_read(self, package: Path) -> None:
        (package / "extra").touch()
        with pytest.raises(ModelPackageError, match=r"lists no file 'extra', only \['model.onnx'\]"):
            ModelPackage.read(package).read_file("extra")

    @pytest.mark.parametrize("name", ["extra.onnx", "deep/er/extra", ".hidden"])
    def test_a_file_that_the_card_does_not_list_fails_the_check(self, package: Path, name: str) -> None:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
        with pytest.raises(ModelPackageError, match=f"holds files that card.json does not list: {name}"):
            ModelPackage.read(package).verify_checksums()

    def test_a_link_to_a_folder_outside_fails_the_check(self, package: Path, tmp_path: Path) -> None:
        (package / "link").symlink_to(tmp_path)
        with pytest.raises(ModelPackageError, match="does not list: link"):
            ModelPackage.read(package).verify_checksums()

    def test_a_link_to_a_file_outside_is_refused_even_with_the_right_content(
        self, package: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside.onnx"
        (package / ONNX_FILE).rename(outside)
        (package / ONNX_FILE).symlink_to(outside)
        with pytest.raises(ModelPackageError, match="is a link to a file outside the package"):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_package_that_is_itself_reached_by_a_link_is_read(self, package: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(package)
        ModelPackage.read(tmp_path / "current").verify_checksums()


class TestNewPackage:
    """Written beside and renamed."""

    @staticmethod
    def write(output: Path, *, force: bool = False, name: str = "mnist-pde") -> None:
        with new_package(output, force=force) as folder:
            fill(folder, replace(CARD, preset=replace(CARD.preset, name=name)))

    def test_the_package_appears_at_the_end_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        output = tmp_path / "deep" / "p"
        with new_package(output) as folder:
            fill(folder)
            assert not output.exists()
            assert folder.parent == output.parent
        ModelPackage.read(output).verify_checksums()
        assert names_in(output.parent) == {"p"}

    def test_the_folder_has_the_usual_permissions(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p")
        (tmp_path / "usual").mkdir()
        assert (tmp_path / "p").stat().st_mode == (tmp_path / "usual").stat().st_mode

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_leaves_nothing(self, tmp_path: Path, error: type[BaseException]) -> None:
        def write() -> None:
            with new_package(tmp_path / "p") as folder:
                fill(folder)
                raise error

        with pytest.raises(error):
            write()
        assert names_in(tmp_path) == set()

    def test_a_package_without_a_card_is_not_left(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=r"needs a card.json"), new_package(tmp_path / "p") as folder:
            (folder / ONNX_FILE).touch()
        assert names_in(tmp_path) == set()

    def test_an_existing_output_is_refused_before_any_work(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p")
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        for name in ("p", "empty", "file"):
            with pytest.raises(ModelPackageError, match=f"{name} exists; --force replaces it"):
                new_package(tmp_path / name).__enter__()

    def test_force_replaces_a_package_completely(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p", name="old")
        (tmp_path / "p" / "old-file").touch()
        self.write(tmp_path / "p", force=True, name="new")
        assert ModelPackage.read(tmp_path / "p").card.preset.name == "new"
        assert not (tmp_path / "p" / "old-file").exists()
        assert names_in(tmp_path) == {"p"}

    def test_force_fills_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        self.write(tmp_path / "p", force=True)
        ModelPackage.read(tmp_path / "p").verify_checksums()

    def test_force_replaces_what_a_link_points_to(self, tmp_path: Path) -> None:
        self.write(tmp_path / "v1", name="old")
        (tmp_path / "current").symlink_to("v1")
        self.write(tmp_path / "current", force=True, name="new")
        assert (tmp_path / "current").is_symlink()
        assert ModelPackage.read(tmp_path / "v1").card.preset.name == "new"

    def test_force_never_deletes_other_data(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
        (tmp_path / "file").write_bytes(b"text")
        for name in ("photos", "file"):
            with pytest.raises(ModelPackageError, match=f"{name} is not a model package .*: it is not replaced"):
                new_package(tmp_path / name, force=True).__enter__()
        assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"
        assert (tmp_path / "file").read_bytes() == b"text"

    @pytest.mark.parametrize("force", [False, True])
    def test_data_that_appears_meanwhile_is_not_deleted(self, tmp_path: Path, force: bool) -> None:
        output = tmp_path / "p"

        def write() -> None:
            with new_package(output, force=force) as folder:
                fill(folder)
                output.mkdir()
                (output / "cat.png").touch()

        with pytest.raises(ModelPackageError, match=r"p (exists|is not a model package)"):
            write()
        assert names_in(tmp_path) == {"p"}
        assert names_in(output) == {"cat.png"}

    @pytest.mark.parametrize("failing", [1, 2])
    def test_a_failed_rename_restores_the_old_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
    ) -> None:
        self.write(tmp_path / "p", name="old")
        rename, calls = Path.rename, []

        def fail_once(path: Path, target: Path) -> Path:
            calls.append(path)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fail_once)
        with pytest.raises(ModelPackageError, match="p cannot be written: No space left on device"):
            self.write(tmp_path / "p", force=True, name="new")
        assert ModelPackage.read(tmp_path / "p").card.preset.name == "old"
        assert names_in(tmp_path) == {"p"}

    def test_an_output_below_a_file_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ModelPackageError, match="cannot be written: "):
            self.write(tmp_path / "file" / "p")

    def test_a_card_needs_a_network(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=r"needs a model.onnx"):
            write_card(tmp_path, CARD)

    @pytest.mark.parametrize("metrics", [{"loss": float("nan")}, {"loss": object()}])
    def test_a_card_that_is_not_json_is_not_written(self, tmp_path: Path, metrics: dict[str, Any]) -> None:
        with pytest.raises(ModelPackageError, match="cannot be written as JSON"):
            fill(tmp_path, replace(CARD, metrics=metrics))
        assert not (tmp_path / CARD_FILE).exists()

    def test_a_card_that_could_not_be_read_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=f"more than {MAX_CARD_BYTES}"):
            fill(tmp_path, replace(CARD, training={"log": "x" * MAX_CARD_BYTES}))

    def test_a_file_name_that_could_not_be_read_is_not_written(self, tmp_path: Path) -> None:
        (tmp_path / ".DS_Store").touch()
        with pytest.raises(ModelPackageError, match=r"a file's name must be .*not '.DS_Store'"):
            fill(tmp_path)
