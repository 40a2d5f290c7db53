"""Model packages: reading, checksums, and writing that leaves either a complete package or nothing."""

import errno
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.card_json import MAX_CARD_BYTES
from pdeinfer.package.package import DIGEST_FILE, ONNX_FILE, ModelPackage
from pdeinfer.package.writing import new_package, write_card
from tests.package.packages import CARD, change_card, fill, names_in


class TestFiles:
    """Reading the files that a card lists."""

    def test_an_intact_file_is_returned(self, package: Path) -> None:
        read = ModelPackage.read(package)
        read.verify_checksums()
        assert read.read_file(ONNX_FILE) == (package / ONNX_FILE).read_bytes()

    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            (
                lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
                "SHA-256 [0-9a-f]{64}",
            ),
            (lambda content: content[:-1], r"\d+ bytes, got \d+"),
            (lambda content: content + b"x", r"\d+ bytes, got \d+"),
            (lambda _: b"", r"\d+ bytes, got 0"),
        ],
    )
    def test_a_changed_file_is_rejected(self, package: Path, damage: Callable[[bytes], bytes], problem: str) -> None:
        path = package / ONNX_FILE
        path.write_bytes(damage(path.read_bytes()))
        read = ModelPackage.read(package)
        for check in (lambda: read.read_file(ONNX_FILE), read.verify_checksums):
            with pytest.raises(ModelPackageError, match=f"{path}.*{problem}"):
                check()

    def test_a_huge_size_in_the_card_does_not_allocate_memory(self, package: Path) -> None:
        change_card(package, lambda card: card["files"][ONNX_FILE].update(bytes=2**62))
        with pytest.raises(ModelPackageError, match=rf"{2**62} bytes, got \d+"):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_missing_file_is_rejected(self, package: Path) -> None:
        (package / ONNX_FILE).unlink()
        with pytest.raises(ModelPackageError, match=str(package / ONNX_FILE)):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_folder_in_place_of_a_file_is_rejected(self, package: Path) -> None:
        (package / ONNX_FILE).unlink()
        (package / ONNX_FILE).mkdir()
        with pytest.raises(ModelPackageError, match=str(package / ONNX_FILE)):
            ModelPackage.read(package).verify_checksums()

    def test_a_file_larger_than_the_limit_is_neither_read_nor_written(
        self, package: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("package", "writing"):
            monkeypatch.setattr(f"pdeinfer.package.{module}.MAX_FILE_BYTES", 100)
        read = ModelPackage.read(package)
        for call in (lambda: read.read_file(ONNX_FILE), lambda: write_card(package, read.card)):
            with pytest.raises(ModelPackageError, match=rf"{ONNX_FILE}.*at most 100 bytes"):
                call()

    @pytest.mark.parametrize("name", [ONNX_FILE, CARD_FILE, DIGEST_FILE])
    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
    def test_anything_but_a_regular_file_is_rejected_at_once(
        self, package: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (package / name).unlink()
        monkeypatch.chdir(package)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as listening:
            if kind == "pipe":
                os.mkfifo(name)
            elif kind == "socket":
                listening.bind(name)
            elif kind == "device":
                Path(name).symlink_to("/dev/zero")
            else:
                Path(name).mkdir()
            with pytest.raises(ModelPackageError, match=name):
                zoo.load(package).read_file(ONNX_FILE)

    def test_an_unlisted_file_is_not_read(self, package: Path) -> None:
        (package / "extra").touch()
        with pytest.raises(ModelPackageError, match=r"'extra'.*\['model.onnx'\]"):
            ModelPackage.read(package).read_file("extra")

    @pytest.mark.parametrize("name", ["extra.onnx", "deep/er/extra"])
    def test_an_unlisted_file_fails_the_check(self, package: Path, name: str) -> None:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
        with pytest.raises(ModelPackageError, match=f": {name}$"):
            ModelPackage.read(package).verify_checksums()

    def test_hidden_files_of_other_tools_are_ignored(self, package: Path) -> None:
        for name in (".gitattributes", "deep/.DS_Store", ".cache/huggingface/download/model.onnx.metadata"):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).touch()
        ModelPackage.read(package).verify_checksums()

    @staticmethod
    def as_hub_cache(package: Path, root: Path, subfolder: str = "", blobs: str = "blobs") -> Path:
        """Move a package into the layout of Hugging Face's cache: links in a snapshot, to files named by hashes."""
        snapshot = root / "snapshots" / "0123abcd" / subfolder
        snapshot.mkdir(parents=True)
        (root / blobs).mkdir()
        for number, path in enumerate(sorted(package.iterdir())):
            path.rename(root / blobs / f"{number:040x}")
            up = "../" * len(snapshot.relative_to(root).parts)
            (snapshot / path.name).symlink_to(f"{up}{blobs}/{number:040x}")
        return snapshot

    @pytest.mark.parametrize("subfolder", ["", "models/tiny"])
    def test_a_package_in_the_cache_of_hugging_face_is_read(
        self, package: Path, tmp_path: Path, subfolder: str
    ) -> None:
        snapshot = self.as_hub_cache(package, tmp_path / "models--me--tiny", subfolder)
        (tmp_path / "current").symlink_to(snapshot)
        for folder in (snapshot, tmp_path / "current"):
            read = ModelPackage.read(folder)
            read.verify_checksums()
            assert len(read.read_file(ONNX_FILE)) == read.card.files[ONNX_FILE].bytes
        (snapshot / ONNX_FILE).resolve().write_bytes(b"x" * read.card.files[ONNX_FILE].bytes)
        with pytest.raises(ModelPackageError, match="damaged"):
            read.read_file(ONNX_FILE)

    def test_links_to_other_places_than_the_blobs_of_the_cache_are_rejected(
        self, package: Path, tmp_path: Path
    ) -> None:
        snapshot = self.as_hub_cache(package, tmp_path / "models--me--tiny", blobs="others")
        with pytest.raises(ModelPackageError, match="outside the package"):
            ModelPackage.read(snapshot).read_file(ONNX_FILE)
        (tmp_path / "blobs").mkdir()
        (snapshot / ONNX_FILE).resolve().rename(tmp_path / "blobs" / "0")
        (snapshot / ONNX_FILE).unlink()
        (snapshot / ONNX_FILE).symlink_to(tmp_path / "blobs" / "0")
        with pytest.raises(ModelPackageError, match="outside the package"):
            ModelPackage.read(snapshot).read_file(ONNX_FILE)

    def test_a_link_to_a_folder_fails_the_check(self, package: Path, tmp_path: Path) -> None:
        (package / "link").symlink_to(tmp_path)
        with pytest.raises(ModelPackageError, match=r": link$"):
            ModelPackage.read(package).verify_checksums()

    def test_a_link_to_a_file_outside_the_package_is_rejected_even_if_its_content_is_right(
        self, package: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside.onnx"
        (package / ONNX_FILE).rename(outside)
        (package / ONNX_FILE).symlink_to(outside)
        with pytest.raises(ModelPackageError, match=str(package / ONNX_FILE)):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_link_to_itself_is_rejected(self, package: Path) -> None:
        (package / ONNX_FILE).unlink()
        (package / ONNX_FILE).symlink_to(ONNX_FILE)
        with pytest.raises(ModelPackageError, match=str(package / ONNX_FILE)):
            ModelPackage.read(package).read_file(ONNX_FILE)

    def test_a_package_behind_a_link_is_read(self, package: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(package)
        ModelPackage.read(tmp_path / "current").verify_checksums()


class TestNewPackage:
    """Packages are written beside their destination and renamed."""

    @staticmethod
    def write(output: Path, *, force: bool = False, name: str = "mnist-pde") -> None:
        with new_package(output, force=force) as folder:
            fill(folder, replace(CARD, preset=replace(CARD.preset, name=name)))

    def test_the_package_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        output = tmp_path / "deep" / "p"
        with new_package(output) as folder:
            fill(folder)
            assert not output.exists()
            assert folder.parent == output.parent
        ModelPackage.read(output).verify_checksums()
        assert names_in(output.parent) == {"p"}

    def test_the_folder_has_the_default_permissions(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p")
        (tmp_path / "usual").mkdir()
        assert (tmp_path / "p").stat().st_mode == (tmp_path / "usual").stat().st_mode

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_leaves_no_files(self, tmp_path: Path, error: type[BaseException]) -> None:
        def write() -> None:
            with new_package(tmp_path / "p") as folder:
                fill(folder)
                raise error

        with pytest.raises(error):
            write()
        assert names_in(tmp_path) == set()

    def test_a_full_disk_names_the_package_and_leaves_no_files(self, tmp_path: Path) -> None:
        def write() -> None:
            with new_package(tmp_path / "p") as folder:
                fill(folder)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` fails: without a file's name

        with pytest.raises(ModelPackageError, match=re.escape(str(tmp_path / "p"))):
            write()
        assert names_in(tmp_path) == set()

    def test_a_package_without_a_card_is_not_created(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=r"card.json"), new_package(tmp_path / "p") as folder:
            (folder / ONNX_FILE).touch()
        assert names_in(tmp_path) == set()

    def test_an_existing_output_is_rejected_before_the_block_runs(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p")
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        for name in ("p", "empty", "file"):
            with pytest.raises(ModelPackageError, match=f"{name} .*--force"):
                new_package(tmp_path / name).__enter__()

    @pytest.mark.parametrize("name", ["x" * 300, "y" * 250, "loop", "file/p", "locked/p"])
    def test_an_output_that_cannot_be_written_is_a_model_package_error(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "file").touch()
        (tmp_path / "locked").mkdir(mode=0)
        if name == "locked/p" and os.access(tmp_path / "locked", os.X_OK):
            pytest.skip("this user may enter any folder")
        with pytest.raises(ModelPackageError, match="cannot be written"):
            self.write(tmp_path / name)
        assert names_in(tmp_path) == {"loop", "file", "locked"}

    def test_force_replaces_a_package_completely(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p", name="old")
        (tmp_path / "p" / "old-file").touch()
        self.write(tmp_path / "p", force=True, name="new")
        assert ModelPackage.read(tmp_path / "p").card.preset.name == "new"
        assert not (tmp_path / "p" / "old-file").exists()
        assert names_in(tmp_path) == {"p"}

    def test_force_keeps_what_is_hidden(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p", name="old")
        (tmp_path / "p" / ".git").mkdir()
        (tmp_path / "p" / ".git" / "HEAD").write_text("ref: refs/heads/main")
        self.write(tmp_path / "p", force=True, name="new")
        assert ModelPackage.read(tmp_path / "p").card.preset.name == "new"
        assert (tmp_path / "p" / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
        assert names_in(tmp_path) == {"p"}

    def test_force_fills_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        self.write(tmp_path / "p", force=True)
        ModelPackage.read(tmp_path / "p").verify_checksums()

    def test_force_replaces_the_target_of_a_link(self, tmp_path: Path) -> None:
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
            with pytest.raises(ModelPackageError, match=f"{name} .*{CARD_FILE}"):
                new_package(tmp_path / name, force=True).__enter__()
        assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"
        assert (tmp_path / "file").read_bytes() == b"text"

    @pytest.mark.parametrize("force", [False, True])
    def test_files_that_appear_during_the_block_are_not_deleted(self, tmp_path: Path, force: bool) -> None:
        output = tmp_path / "p"

        def write() -> None:
            with new_package(output, force=force) as folder:
                fill(folder)
                output.mkdir()
                (output / "cat.png").touch()

        with pytest.raises(ModelPackageError, match=str(output)):
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
        with pytest.raises(ModelPackageError, match="No space left on device"):
            self.write(tmp_path / "p", force=True, name="new")
        assert ModelPackage.read(tmp_path / "p").card.preset.name == "old"
        assert names_in(tmp_path) == {"p"}

    def test_the_root_is_no_output(self) -> None:
        with pytest.raises(ModelPackageError, match="/ cannot be written"):
            self.write(Path("/"), force=True)

    def test_an_output_inside_a_file_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ModelPackageError, match="file/p"):
            self.write(tmp_path / "file" / "p")

    def test_a_card_without_a_model_file_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=r"model.onnx"):
            write_card(tmp_path, CARD)

    @pytest.mark.parametrize("metrics", [{"loss": float("nan")}, {"loss": object()}])
    def test_a_card_that_is_not_json_is_not_written(self, tmp_path: Path, metrics: dict[str, Any]) -> None:
        with pytest.raises(ModelPackageError, match="JSON"):
            fill(tmp_path, replace(CARD, metrics=metrics))
        assert not (tmp_path / CARD_FILE).exists()

    def test_a_card_larger_than_the_limit_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ModelPackageError, match=str(MAX_CARD_BYTES)):
            fill(tmp_path, replace(CARD, training={"log": "x" * MAX_CARD_BYTES}))

    def test_a_file_name_that_a_card_cannot_list_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / ".DS_Store").touch()
        with pytest.raises(ModelPackageError, match=r"'.DS_Store'"):
            fill(tmp_path)
