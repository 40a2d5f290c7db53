"""What sources hold: folders, patterns, tar and Parquet files, intact and damaged."""

import errno
import glob
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ClassifyError, ImageError, ImageTooLargeError
from pdeinfer.images import sorting
from pdeinfer.images.files import LeftOut
from pdeinfer.images.sorting import sorted_names
from pdeinfer.offline import chunks as chunks_module
from pdeinfer.offline import sources as sources_module
from pdeinfer.offline.chunks import NamedImage, from_line, to_line
from pdeinfer.offline.sources import list_chunks
from tests.images.image_makers import needs_proc, unreadable
from tests.offline.makers import picture, write_pictures, write_tar
from tests.offline.parquet import write_parquet


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was loaded",)


def read(*sources: Path | str, left_out: list[LeftOut] | None = None) -> list[NamedImage]:
    """Return the images of sources, as a process reads them that has only the lines of the plan."""
    leave_out = (left_out if left_out is not None else []).append
    listed = list_chunks([str(source) for source in sources], leave_out)
    return [image for chunk in listed for image in from_line(to_line(chunk)).read()]


def names(*sources: Path | str) -> list[str]:
    return [name for name, _ in read(*sources)]


def contents(*sources: Path | str) -> dict[str, bytes]:
    return {Path(name).name: image for name, image in read(*sources) if isinstance(image, bytes)}


def errors(*sources: Path | str) -> dict[str, ImageError]:
    return {name: image for name, image in read(*sources) if isinstance(image, ImageError)}


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


def test_a_tar_gives_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    poison = pickle.dumps(Trap())
    members = [(f"{key}.{suffix}", content) for key in "ab" for suffix, content in (
        ("jpg", key.encode()), ("cls", b"3"), ("json", b"{"), ("pkl", poison), ("pyd", poison), ("npy", poison),
    )]  # fmt: skip
    shard = write_tar(tmp_path / "shard.tar", [*members, ("deep/c.PNG", b"c"), ("._a.jpg", b"macOS")])

    assert read(shard) == [(f"{shard}/a.jpg", b"a"), (f"{shard}/b.jpg", b"b"), (f"{shard}/deep/c.PNG", b"c")]
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]  # nothing was unpacked


def test_long_names_in_a_tar_are_read_whole(tmp_path: Path) -> None:
    name = "é" * 200 + ".png"
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        shard = tmp_path / f"{tar_format}.tar"
        with tarfile.open(shard, "w", format=tar_format) as tar:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        assert read(shard) == [(f"{shard}/{name}", b"abc")]


def test_links_and_sparse_files_in_a_tar_are_errors(tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)

    assert list(errors(shard)) == [f"{shard}/2.png", f"{shard}/1.png"]


@pytest.mark.parametrize("cut", [1, 600, 1100])
def test_a_tar_that_is_cut_off_gives_what_is_whole_and_an_error(tmp_path: Path, cut: int) -> None:
    shard = write_tar(tmp_path / "shard.tar", [("a.png", b"a" * 512), ("b.png", b"b" * 512)])
    whole = 4 * 512
    shard.write_bytes(shard.read_bytes()[: whole + 512 - cut])

    assert list(errors(shard)) == [str(shard)]
    assert "a.png" in contents(shard)


def test_a_damaged_header_within_a_tar_is_an_error_and_not_its_end(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "shard.tar", [("a.png", b"a"), ("b.png", b"b"), ("c.png", b"c")])
    content = bytearray(shard.read_bytes())
    content[1024:1100] = b"?" * 76
    shard.write_bytes(content)

    assert names(shard) == [f"{shard}/a.png", str(shard)]
    assert list(errors(shard)) == [str(shard)]


@pytest.mark.parametrize("content", [b"", b"no tar file" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)

    assert list(errors(tmp_path / "a.tar")) == [str(tmp_path / "a.tar")]


def header(name: str, size: bytes, kind: bytes) -> bytes:
    """Return a block that announces a member of a tar file."""
    fields = (
        name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    )
    block = bytearray((fields + b" " * 8 + kind + bytes(100) + b"ustar\x0000").ljust(512, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NEGATIVE = b"\xff" + struct.pack(">Q", 2**64 - 1024).rjust(11, b"\xff")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(header("a.png", NEGATIVE, b"0") * 3, id="a member before itself"),
        pytest.param(header("a", NEGATIVE, b"x") * 3, id="a negative attribute"),
        pytest.param(header("a", b"%011o" % 2**33, b"x") + bytes(2**20), id="a large attribute"),
        pytest.param(header("a", b"%011o" % 2**30, b"L") + bytes(2**20), id="a long name"),
        pytest.param(header("a", b"0", b"x") * 5000, id="attributes of attributes"),
    ],
)
def test_hostile_headers_of_a_tar_are_an_error_at_once(tmp_path: Path, content: bytes) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(content + bytes(1024))

    assert str(shard) in errors(shard)
    assert contents(shard) == {}


def test_tar_files_that_were_joined_are_an_error_after_the_first(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{name}.tar", [(f"{name}.png", b"a")]) for name in "ab")
    joined = tmp_path / "joined.tar"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert names(joined) == [f"{joined}/a.png", str(joined)]
    assert "cat" in str(errors(joined)[str(joined)])

    joined.write_bytes(first.read_bytes() + b"?" * 1000)  # tar ignores what is no member, too
    assert names(joined) == [f"{joined}/a.png"]


def test_large_attributes_in_a_tar_are_not_called_damage(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"comment": "a" * 2**16}
        tar.addfile(member)

    (error,) = errors(shard).values()
    assert "64 KiB" in str(error)
    assert "intact" not in str(error)


def test_a_tar_without_images_is_left_out(tmp_path: Path) -> None:
    left_out: list[LeftOut] = []
    shard = write_tar(tmp_path / "a.tar", [("a.cls", b"3")])

    assert read(shard, left_out=left_out) == []
    assert [each.path for each in left_out] == [shard]


def test_a_large_member_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "MAX_FILE_BYTES", 10)
    shard = write_tar(tmp_path / "a.tar", [("large.png", bytes(11)), ("b.png", bytes(10))])

    (large, refused), (small, content) = read(shard)

    assert (large, small) == (f"{shard}/large.png", f"{shard}/b.png")
    assert isinstance(refused, ImageTooLargeError)
    assert content == bytes(10)


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


@pytest.mark.parametrize("is_struct", [False, True])
@pytest.mark.parametrize("rows", [3, 1000])
def test_parquet_gives_each_row_by_number(
    tmp_path: Path, is_struct: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdeinfer.offline.parquet._LEAST_ROWS", 2)
    monkeypatch.setattr("pdeinfer.offline.parquet._BATCH_ROWS", 3)
    images: list[bytes | None] = [b"%d" % number for number in range(20)]
    path = write_parquet(tmp_path / "a.parquet", images, is_struct=is_struct, rows=rows)

    assert read(path) == [(f"{path}/{number}", image) for number, image in enumerate(images)]


@pytest.mark.parametrize("name", [b"\xff.parquet", b"a:b.parquet"])
def test_parquet_may_have_any_name(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    write_parquet(tmp_path / "a.parquet", [b"a"]).rename(path)

    assert read(path) == [(f"{path}/0", b"a")]


def test_a_null_in_parquet_is_an_error_and_its_path_is_not_opened(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [b"a", None], is_struct=True)

    assert list(errors(path)) == [f"{path}/1"]
    assert contents(path) == {"0": b"a"}


def test_parquet_without_one_column_of_images_is_an_error(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for found, columns in (("a: int64", {"a": [1]}), ("a: binary, b: binary", {"a": [b"1"], "b": [b"2"]})):
        path = tmp_path / "a.parquet"
        parquet.write_table(pa.table(columns), path)
        (error,) = errors(path).values()
        assert found in str(error)


@pytest.mark.parametrize("kind", ["binary_view", "dictionary"])
def test_parquet_may_hold_its_images_as_views_or_in_a_dictionary(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    types = {"binary_view": pa.binary_view(), "dictionary": pa.dictionary(pa.int32(), pa.binary())}
    parquet.write_table(pa.table({"image": pa.array([b"a", None, b"a"], types[kind])}), path)

    assert list(errors(path)) == [f"{path}/1"]
    assert contents(path) == {"0": b"a", "2": b"a"}


@pytest.mark.parametrize("other", [b"b", 1])
def test_parquet_with_two_columns_of_one_name_is_an_error(tmp_path: Path, other: object) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_arrays([pa.array([other]), pa.array([b"a"])], ["image", "image"]), path)
    assert list(errors(path)) == [str(path)]


def test_damaged_parquet_is_an_error_for_each_row_that_cannot_be_read(tmp_path: Path) -> None:
    images: list[bytes | None] = [os.urandom(1000) for _ in range(20)]
    path = write_parquet(tmp_path / "a.parquet", images, rows=10)
    content = bytearray(path.read_bytes())
    start = content.index(images[0] or b"")
    content[start - 24 : start - 4] = b"\xff" * 20  # in the header of the first page

    path.write_bytes(content)
    found = read(path)
    assert [name for name, _ in found] == [f"{path}/{number}" for number in range(20)]
    assert len(errors(path)) == 10

    path.write_bytes(content[:-100])
    assert list(errors(path)) == [str(path)]
