"""`pdeinfer.images.convert.image_files`: the images of a folder."""

from pathlib import Path

import pytest

from pdeinfer.errors import ImageError
from pdeinfer.images.convert import image_files


def test_images_are_found_by_suffix_and_sorted_and_folders_below_are_left_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt", "noext"):
        (tmp_path / name).touch()
    (tmp_path / "below.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"^{tmp_path}: expected a folder of images .*, found none$"):
        image_files(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none: expected a folder of images: No such file or directory$"):
        image_files(tmp_path / "none")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match=r"a.png: expected a folder of images: Not a directory$"):
        image_files(tmp_path / "a.png")
