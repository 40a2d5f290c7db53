"""Files that are replaced as a whole."""

import errno
import os
from pathlib import Path

import pytest

from pdeinfer.files import replace_file


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_the_content_is_on_the_disk_before_the_file_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    synced: list[tuple[bytes, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.pread(file, 100, 0), path.exists())))
    replace_file(path, lambda partial: partial.write_text("content"))
    assert synced == [(b"content", False)]


def test_no_other_file_is_touched_and_two_writers_at_once_have_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "partial-file").write_text("precious")
    path = tmp_path / "file"

    def write_twice(partial: Path) -> None:
        replace_file(path, lambda other: other.write_text("the other's"))
        partial.write_text("the last one's")

    replace_file(path, write_twice)
    assert path.read_text() == "the last one's"
    assert (tmp_path / "partial-file").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", [f"{'a' * 250}.html", "a.html", "a"])
def test_the_format_can_be_told_from_the_suffix_also_of_the_longest_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    suffixes = []
    replace_file(path, lambda partial: (suffixes.append(partial.suffix), partial.write_text("content")))
    assert (path.read_text(), suffixes) == ("content", [path.suffix])


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    def fill_the_disk(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for path, write in (
        (tmp_path / "full", fill_the_disk),
        (tmp_path / "missing" / "file", Path.touch),
        (tmp_path / "unwritten", lambda _: None),
    ):
        with pytest.raises(OSError, match="No") as caught:
            replace_file(path, write)
        assert caught.value.filename == str(path)


def test_a_link_stays_one_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    link = tmp_path / "link"
    link.symlink_to("file")
    replace_file(link, lambda path: path.write_text("after"))
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "after"


def test_a_pipe_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    replace_file(tmp_path / "pipe", lambda path: path.write_text("content"))
    assert os.read(reader, 100) == b"content"
    os.close(reader)
