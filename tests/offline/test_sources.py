"""What sources hold: folders, patterns, and files of images; names of every kind."""

import errno
import glob
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ClassifyError, ImageError
from pdeinfer.images import sorting
from pdeinfer.images.files import LeftOut
from pdeinfer.images.sorting import sorted_names
from pdeinfer.offline import chunks as chunks_module
from pdeinfer.offline import sources as sources_module
from pdeinfer.offline.sources import list_chunks
from tests.images.image_makers import needs_proc, unreadable
from tests.offline.makers import picture, write_pictures, write_tar
from tests.offline.parquet import write_parquet
from tests.offline.reading import errors, names, read


def test_a_folder_is_searched_with_those_below_it_in_order(tmp_path: Path) -> None:
    write_pictures(tmp_path / "b", 2)
    write_pictures(tmp_path / "a" / "deep", 1)
    (tmp_path / "c.png").write_bytes(picture(0))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(picture(0))
    left_out: list[LeftOut] = []

    found = read(tmp_path, left_out=left_out)

    expected = [tmp_path / name for name in ("a/deep/00000.png", "b/00000.png", "b/00001.png", "c.png")]
    assert found == [(str(path), str(path)) for path in expected]
    assert [each.path for each in left_out] == [tmp_path / "notes.txt"]


def test_a_pattern_takes_what_fits_in_order(tmp_path: Path) -> None:
    first, second, _ = write_pictures(tmp_path / "photos", 3)
    (tmp_path / "photos" / "00002.png").rename(tmp_path / "photos" / "other.jpg")

    assert names(tmp_path / "photos" / "*.png") == [str(first), str(second)]
    assert names(tmp_path / "**" / "0*.png") == [str(first), str(second)]


def test_a_recursive_pattern_repeats_nothing_and_follows_no_link(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos / "a" / "b", 1)
    (photos / "c.png").write_bytes(picture(0))
    expected = [str(photos / name) for name in ("a/b/00000.png", "c.png")]
    left_out: list[LeftOut] = []

    assert names(photos / "**") == names(photos / "**" / "**" / "*.png") == expected
    for name in ("loop", "again"):  # together they have 2^40 paths
        (photos / name).symlink_to(photos)
    assert read(photos / "**" / "*.png", left_out=left_out) == [(name, name) for name in expected]
    assert {each.path.name for each in left_out} == {"loop", "again"}


def test_a_link_that_a_pattern_names_or_fits_without_recursion_is_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    (tmp_path / "set[1]").symlink_to(tmp_path / "photos")

    for pattern in ("set[[]1]/**/*.png", "set*/**/*.png", "se**/*.png", "set*/*.png"):
        assert names(tmp_path / pattern) == [str(tmp_path / "set[1]" / "00000.png")], pattern


def test_a_recursive_pattern_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)

    assert names("**/*.png") == names("photos/**/*.png") == ["photos/00000.png"]


def test_a_broken_link_that_fits_a_pattern_is_left_out(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "photos", 1)
    (tmp_path / "photos" / "broken.png").symlink_to("nothing")
    left_out: list[LeftOut] = []

    assert read(tmp_path / "photos" / "*", left_out=left_out) == [(str(path), str(path))]
    assert left_out == [LeftOut(tmp_path / "photos" / "broken.png", "a broken link")]


@pytest.mark.parametrize("pattern", ["*", "*/*", "*/0*.png", "*/00000.png", "**/*.png", "*/**/*.png"])
def test_a_folder_that_may_not_be_read_is_left_out_once_by_a_pattern(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_pictures(tmp_path / "a", 1)
    (tmp_path / "file").write_bytes(picture(0))
    locked = write_pictures(tmp_path / "b", 1)[0].parent

    def refuse(function: Callable[..., Any], path: str | os.PathLike[str], **options: Any) -> Any:
        if (Path(path) == locked and function != os_lstat) or Path(path).parent == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return function(path, **options)

    os_lstat = os.lstat
    for function in (os.scandir, os.listdir, os.lstat):  # root may read every folder
        monkeypatch.setattr(os, function.__name__, partial(refuse, function))
    left_out: list[LeftOut] = []

    found = read(tmp_path / pattern, left_out=left_out)
    assert [name for name, _ in found if name != str(tmp_path / "file")] == [str(path)]
    assert [each.path for each in left_out] == [locked]


def test_a_pattern_means_what_glob_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a[1]/x.png", "a/x.png", "a/.y.png", ".h/x.png", "b/a/x.png", "b/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(0))
    (tmp_path / "a" / "broken").symlink_to("nothing")
    monkeypatch.chdir(tmp_path)
    patterns = [
        "*",
        "*/",
        "*/*",
        "*/x.png",
        "a[[]1]/*",
        "[!a]/*",
        "?/*",
        "./*/x.*",
        "a//*",
        "*/a/../x*",
        ".*/*",
        "a/.*",
    ]
    for pattern in [*patterns, *(f"{tmp_path}/{pattern}" for pattern in patterns), "*/*/", "a/.*", "../*/a/x*"]:
        found = list(sources_module._glob(pattern, lambda _: None))
        assert sorted(found) == sorted(glob.glob(pattern)), pattern  # noqa: PTH207  # the meaning of `glob`


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(picture(0))

    assert names(tmp_path / "a[1].png") == [str(tmp_path / "a[1].png")]


def test_chunks_are_full_across_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "CHUNK_IMAGES", 4)
    paths = write_pictures(tmp_path / "photos", 6)

    listed = list_chunks([str(path) for path in paths], lambda _: None)

    assert [chunk.images for chunk in listed] == [4, 2]


def test_what_the_run_itself_writes_is_no_source(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "photos", 1)
    own = write_pictures(tmp_path / "photos" / "own", 1)[0].parent
    left_out: list[LeftOut] = []

    def is_own(path: Path) -> bool:
        return own in (path, *path.parents)

    for pattern in ("*", "**/*"):
        chunks = list_chunks([str(tmp_path / "photos" / pattern)], left_out.append, is_own)
        assert [name for chunk in chunks for name in chunk.names()] == [str(path)]
    assert left_out == []


def test_a_folder_without_images_that_fits_a_pattern_is_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos" / "a", 1)
    (tmp_path / "photos" / "empty").mkdir()
    left_out: list[LeftOut] = []

    assert len(read(tmp_path / "photos" / "*", left_out=left_out)) == 1
    assert [(each.path.name, each.files) for each in left_out] == [("empty", 0)]


@needs_proc
@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_file_of_images_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    path = unreadable(tmp_path / name)

    assert list(errors(path)) == [str(path)]


def test_a_member_of_a_tar_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_tar(tmp_path / "a.tar", [("a.png", b"a"), ("b.png", b"b")])
    (chunk,) = list_chunks([str(shard)], lambda _: None)

    class Broken(io.BytesIO):
        number = errno.EIO

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            if content == b"a":
                raise OSError(self.number, os.strerror(self.number))
            return content

    monkeypatch.setattr(chunks_module, "open", lambda *_: Broken(shard.read_bytes()), raising=False)
    (first, error), *others = chunk.read()
    assert first == f"{shard}/a.png"
    assert isinstance(error, ImageError)
    assert others == [(f"{shard}/b.png", b"b")]

    monkeypatch.setattr(Broken, "number", errno.ENOMEM)
    with pytest.raises(OSError, match=str(shard)):
        list(chunk.read())


@pytest.mark.parametrize("source", ["none.png", "none/*.png", "empty", "shard.tar.gz", "nul\0.png"])
def test_a_source_that_holds_nothing_is_refused_by_name(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "shard.tar.gz").write_bytes(b"\x1f\x8b")

    with pytest.raises(ClassifyError, match=source.partition("*")[0].partition("\0")[0]):
        read(tmp_path / source)


@pytest.mark.parametrize("source", ["s3://bucket/photos", "HTTPS://example.org/*.png"])
def test_a_url_is_refused_as_one(source: str) -> None:
    with pytest.raises(ClassifyError, match="expected a local path, got a URL"):
        read(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_only_one_process_can_read_is_refused_or_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ClassifyError, match=r"pipe\.png.* got a pipe: pdeinfer predict"):
        list(list_chunks([str(tmp_path / "pipe.png")], lambda _: None))
    with pytest.raises(ClassifyError, match=r"/dev/null: .* got a device"):
        list(list_chunks(["/dev/null"], lambda _: None))
    with (tmp_path / "file").open("wb") as file, pytest.raises(ClassifyError, match="descriptor"):
        list(list_chunks([f"/dev/fd/{file.fileno()}"], lambda _: None))

    left_out: list[LeftOut] = []
    assert list(list_chunks([str(tmp_path / "*.png")], left_out.append)) == []
    assert [each.path.name for each in left_out] == ["pipe.png"]


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(path)).write_bytes(picture(0))

    ((_, found),) = read(tmp_path)

    assert os.fsencode(str(found)) == path


def test_many_names_are_sorted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_NAMES_IN_MEMORY", 7)
    unsorted = [f"{number * 7919 % 100}\n\udcff" for number in range(100)]

    assert list(sorted_names(unsorted)) == sorted(unsorted)


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_file_that_changes_after_it_was_listed_is_refused(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a{suffix}"
    if suffix == ".tar":
        write_tar(source, [("a.png", b"a")])
    else:
        write_parquet(source, [b"a"])
    (chunk,) = list_chunks([str(source)], lambda _: None)
    os.utime(source, (1, 1))

    with pytest.raises(ClassifyError, match=source.name):
        list(chunk.read())
