"""Tar files as sources: intact, damaged and hostile."""

import io
import pickle
import struct
import tarfile
from pathlib import Path

import pytest

from pdeinfer.errors import ImageTooLargeError
from pdeinfer.images.files import LeftOut
from pdeinfer.offline import chunks as chunks_module
from tests.offline.makers import write_tar
from tests.offline.reading import Trap, contents, errors, names, read


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
