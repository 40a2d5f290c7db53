"""`pdeinfer.images.files`: the images of a folder, and what is left out."""

import errno
import os
import sys
from pathlib import Path

import PIL.Image
import pytest

from pdeinfer.errors import ImageError
from pdeinfer.images import files, formats
from pdeinfer.images.files import LeftOut, describe_left_out, find_image_files
from tests.images.image_makers import encode

JPEG = encode(PIL.Image.new("L", (8, 8)), "JPEG")


def write(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(folder: Path, *, recursive: bool = False) -> list[str]:
    found = find_image_files(folder, recursive=recursive)
    return [path.relative_to(folder).as_posix() for path in found.images]


def left_out(folder: Path, *, recursive: bool = False) -> dict[str, tuple[str, int]]:
    found = find_image_files(folder, recursive=recursive)
    return {each.path.relative_to(folder).as_posix(): (each.reason, each.files) for each in found.left_out}


def test_images_are_found_by_suffix_and_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b.PNG", "a.jpg", "c.webp", "d.jfif", "e.jpe", "f.TIFF")
    assert names(tmp_path) == ["a.jpg", "b.PNG", "c.webp", "d.jfif", "e.jpe", "f.TIFF"]
    assert left_out(tmp_path) == {}


def test_a_file_is_taken_by_its_content_if_its_name_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "photo", "photo.jpg_large", content=JPEG)
    assert names(tmp_path) == ["photo", "photo.jpg_large"]


def test_heic_files_are_images_where_they_can_be_decoded(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    write(tmp_path, "a.heic", "b.HEIF")
    assert names(tmp_path) == ["a.heic", "b.HEIF"]


def test_other_files_are_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "HAS_HEIF", False)
    monkeypatch.setattr(files, "SUFFIXES", tuple(set(files.SUFFIXES) - {".heic"}))
    write(tmp_path, "a.jpg", "empty.dat")
    write(tmp_path, "b.heic", content=b"\0\0\0\x18ftypheic" + bytes(16))
    write(tmp_path, "c.nef", content=b"II*\0" + bytes(16))
    write(tmp_path, "notes.txt", content=b"hello")
    (tmp_path / "link.jpg").symlink_to("/not/there.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert left_out(tmp_path) == {
        "b.heic": ("a HEIC image: pip install 'pdeinfer[heic]', or convert it to JPEG or PNG", 1),
        "c.nef": ("not named as an image (.nef)", 1),
        "empty.dat": ("an empty file", 1),
        "link.jpg": ("a broken link", 1),
        "notes.txt": ("a file of no known image format", 1),
        "pipe.jpg": ("not a regular file", 1),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b")
    (tmp_path / "b").chmod(0)
    assert left_out(tmp_path) == {"b": ("cannot be read: Permission denied", 1)}


def test_too_many_open_files_are_not_blamed_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jpg", "b")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match="Too many open files") as caught:
        find_image_files(tmp_path)
    assert not isinstance(caught.value, ImageError)


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "._a.jpg", ".thumbnails/b.jpg", "below/.c.jpg")
    assert names(tmp_path, recursive=True) == ["a.jpg"]
    assert left_out(tmp_path, recursive=True) == {}
    assert left_out(tmp_path) == {"below": ("a folder of 0 files", 0)}


def test_folders_below_are_counted_or_searched(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "below/b.jpg", "below/deeper/c.jpg", "below/deeper/notes.txt", "below.png/d.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert left_out(tmp_path) == {"below": ("a folder of 3 files", 3), "below.png": ("a folder of 1 file", 1)}
    assert names(tmp_path, recursive=True) == ["a.jpg", "below/b.jpg", "below/deeper/c.jpg", "below.png/d.jpg"]
    assert left_out(tmp_path, recursive=True) == {"below/deeper/notes.txt": ("an empty file", 1)}


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "below/b.jpg")
    (tmp_path / "below" / "loop").symlink_to(tmp_path)
    assert names(tmp_path, recursive=True) == ["a.jpg", "below/b.jpg"]
    assert set(left_out(tmp_path, recursive=True)) == {"below/loop"}


def test_what_was_left_out_is_named_up_to_ten_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", *(f"{number:02}.txt" for number in range(12)), "below/1.jpg", "below/2.jpg")
    lines = describe_left_out(find_image_files(tmp_path).left_out)
    assert lines[0] == f"left out: {tmp_path / '00.txt'}: an empty file"
    assert lines[10:] == ["left out: 3 more", "files left out in all: 14"]
    assert describe_left_out([]) == []


def test_a_folder_without_images_is_refused_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "below/a.jpg")
    with pytest.raises(ImageError, match=f"^{tmp_path}: .* found none; left out: .*below: a folder of 1 file"):
        find_image_files(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none: expected a folder of images: No such file or directory$"):
        find_image_files(tmp_path / "none")


def test_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    with pytest.raises(ImageError, match=r"a.png: expected a folder of images: Not a directory$"):
        find_image_files(tmp_path / "a.png")


def test_a_folder_behind_a_link_is_not_counted(tmp_path: Path) -> None:
    write(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    assert left_out(tmp_path / "photos") == {"link": ("a link to a folder", 1)}


def test_a_link_to_itself_does_not_end_the_count(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "below/1.jpg", "below/deeper/2.jpg")
    (tmp_path / "below" / "self").symlink_to("self")
    assert left_out(tmp_path) == {"below": ("a folder of 3 files", 3)}


def test_a_folder_that_vanishes_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "below/b.jpg")
    walk = files.walk_folder(tmp_path, recursive=True)
    assert next(walk).path == str(tmp_path / "a.jpg")
    (tmp_path / "below" / "b.jpg").unlink()
    (tmp_path / "below").rmdir()
    assert list(walk) == [LeftOut(tmp_path / "below", "a broken link")]


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    depth = sys.getrecursionlimit() + 100
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    write(Path(), "b.jpg")
    try:
        assert left_out(tmp_path) == {"d": ("a folder of 1 file", 1)}
        assert [path.name for path in find_image_files(tmp_path, recursive=True).images] == ["a.jpg", "b.jpg"]
    finally:  # pytest would recurse to remove them
        Path("b.jpg").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()


def test_control_characters_in_names_are_escaped(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "no\x1b[31m.txt", "\u590f\u3000\u4f11.txt")
    first, second, _ = describe_left_out(find_image_files(tmp_path).left_out)
    assert first.endswith(r"/no\x1b[31m.txt: an empty file")
    assert second.endswith("/\u590f\u3000\u4f11.txt: an empty file")  # an ideographic space is no control character
