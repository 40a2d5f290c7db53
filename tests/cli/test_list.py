"""`pdeinfer list`."""

from pathlib import Path

import pytest

from pdeinfer.cli import main as cli
from pdeinfer.package import zoo
from tests.cli.helpers import Captured, error_lines
from tests.conftest import GREY_PRESET, write_tiny_package


class TestList:
    """pdeinfer list."""

    def test_bundled_models_are_one_row_each(
        self, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_tiny_package(tmp_path / "tiny-grey", GREY_PRESET)
        monkeypatch.setattr(zoo, "_MODELS", tmp_path)
        monkeypatch.setattr(zoo, "DEFAULT_MODEL", "tiny-grey")
        assert cli.main(["list"]) == 0
        header, line = capsys.readouterr().out.splitlines()
        columns = ["name", "input", "classes", "parameters", "MACs", "test accuracy", "size"]
        assert header.split() == " ".join(columns).split()
        assert line.split() == ["tiny-grey", "8x8x1", "10", "640", "640", "50.00%", "3", "KiB", "default"]
        for column in columns[1:]:  # right-aligned below their headings
            assert line[header.index(column) + len(column) - 1] != " "

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_missing_fused_operator_is_noted_on_stderr(
        self, exists: bool, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "library.so"
        if exists:
            library.touch()
        monkeypatch.setattr("pdeinfer.cli.list.LIBRARY", library)
        assert cli.main(["list"]) == 0
        notes = error_lines(capsys)
        assert len(notes) == (not exists)
        assert all("fused operator" in note for note in notes)
