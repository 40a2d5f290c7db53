"""Folders of images: layouts, splits, files left out, refusals."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.datasets import (
    find_images,
    load_training_images,
)
from pdeinfer.errors import DatasetError, ImageTooCostlyError
from pdeinfer.images.convert import to_array
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.spec.presets import PRESETS
from tests.datasets.folders import files_of, write_images
from tests.images.image_makers import gif_of_comments, heic

PRESET = PRESETS["digits-pde"]
SPEC = PRESET.input


def test_isolated_decoding_reads_the_same_images(flat: Path) -> None:
    (flat / "cat" / "bomb.gif").write_bytes(gif_of_comments(60_000_000))
    folder = find_images(flat)
    with IsolatedDecoders() as decoders:
        isolated, errors = folder.read(SPEC, decoders.to_array)
    (flat / "cat" / "bomb.gif").write_bytes(b"GIF89a")
    expected, _ = folder.read(SPEC)

    assert [type(error) for error in errors] == [ImageTooCostlyError]
    np.testing.assert_array_equal(isolated.train.images, expected.train.images)
    np.testing.assert_array_equal(isolated.test.images, expected.test.images)


def test_heic_photos_are_read_as_the_isolated_decoder_reads_them(flat: Path) -> None:
    for number, path in enumerate(sorted((flat / "cat").iterdir())):
        path.unlink()
        path.with_suffix(".heic").write_bytes(heic(PIL.Image.new("RGB", (64, 64), (50 * number, 10, 200))))
    folder = find_images(flat)
    with IsolatedDecoders() as decoders:
        expected, _ = folder.read(SPEC, decoders.to_array)

    read, errors = folder.read(SPEC)

    assert errors == []
    np.testing.assert_array_equal(read.train.images, expected.train.images)
    calibrating = load_training_images(None, PRESET, flat / "cat")
    assert calibrating.shape[0] == 5


def test_a_fifth_of_each_class_is_held_out_for_the_test_the_same_every_time(flat: Path) -> None:
    found = find_images(flat)
    assert found.labels == ("cat", "dog")
    assert found.is_test_held_out
    assert found.files.keys() == {"train", "test"}
    files = [file for name in ("train", "test") for file, _ in found.files[name]]
    assert sorted(files) == sorted(path for path in flat.rglob("*") if path.is_file())
    assert find_images(flat) == found


def test_a_link_to_another_photo_is_left_out(flat: Path) -> None:
    before = find_images(flat)
    links = [flat / "cat" / "again.png", flat / "cat" / "chain.png", flat / "dog" / "cat.png"]
    for link, target in zip(links, ["00.png", "again.png", "../cat/00.png"], strict=True):
        link.symlink_to(target)
    found = find_images(flat)
    assert found.files == before.files
    assert [str(each) for each in found.left_out] == [
        f"left out: {link}: a link to the image of {flat}/cat/00.png" for link in links
    ]


def test_a_folder_of_links_to_photos_elsewhere_is_a_data_set(flat: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for file in [path for path in flat.rglob("*") if path.is_file()]:
        (linked / file.parent.name).mkdir(parents=True, exist_ok=True)
        (linked / file.parent.name / file.name).symlink_to(file)
    found = find_images(linked)
    assert files_of(found) == files_of(find_images(flat))
    (linked / "dog" / "99.png").symlink_to(flat / "dog" / "00.png")
    again = find_images(linked)
    assert again.files == found.files
    assert linked / "dog" / "99.png" in [each.path for each in again.left_out]


def test_test_images_that_are_links_to_training_images_are_refused(split: Path) -> None:
    shutil.rmtree(split / "test" / "dog")
    (split / "test" / "dog").mkdir()
    (split / "test" / "dog" / "00.png").symlink_to(split / "train" / "dog" / "00.png")
    with pytest.raises(DatasetError, match=r"test/dog: expected images, got links to other images of"):
        find_images(split)


def test_a_photo_keeps_its_split_when_others_are_added(flat: Path) -> None:
    for label in ("dog", "cat"):
        for number in range(40):
            (flat / label / f"IMG_{number}.jpg").touch()  # not decoded
    before = files_of(find_images(flat, 0.1))
    assert all(len(files) > 4 for files in before.values())
    for number in range(25):
        (flat / "dog" / f"A_{number}.jpg").touch()
    after = files_of(find_images(flat, 0.1))
    assert all(before[name] <= after[name] for name in ("train", "val", "test"))
    assert after["test"] - before["test"]


def test_a_class_of_two_images_has_one_of_them_for_the_test(tmp_path: Path) -> None:
    for label in "abcdef":
        write_images(tmp_path / label, 2)
    for name in ("train", "test"):
        assert [label for _, label in find_images(tmp_path, 0.1).files[name]] == list(range(6))


def test_the_folders_of_the_splits_are_taken_as_they_are(split: Path) -> None:
    found = find_images(split)
    assert found.labels == ("cat", "dog")
    assert not found.is_test_held_out
    for name, count in (("train", 4), ("val", 3), ("test", 2)):
        assert [label for _, label in found.files[name]] == [0] * count + [1] * count
        assert all(file.is_relative_to(split / name / found.labels[label]) for file, label in found.files[name])
    assert found.record().split_seed is None


def test_images_are_decoded_as_for_prediction(flat: Path) -> None:
    found = find_images(flat)
    dataset, errors = found.read(SPEC)
    assert errors == []
    assert dataset.validation is None
    for images, name in ((dataset.train, "train"), (dataset.test, "test")):
        assert images.images.dtype == np.uint8
        assert images.labels.tolist() == [label for _, label in found.files[name]]
        for image, (file, _) in zip(images.images, found.files[name], strict=True):
            assert np.array_equal(image, to_array(file, SPEC))


def test_validation_images_are_read_if_the_folder_has_them(split: Path) -> None:
    dataset, _ = find_images(split).read(SPEC)
    assert dataset.validation is not None
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [8, 6, 4]


def test_unreadable_images_are_left_out_and_reported(split: Path) -> None:
    broken = split / "train" / "dog" / "01.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    (split / "test" / "cat" / "00.png").write_bytes(b"")
    dataset, errors = find_images(split).read(SPEC)
    assert [str(error).partition(":")[0] for error in errors] == [str(broken), str(split / "test" / "cat" / "00.png")]
    assert np.bincount(dataset.train.labels).tolist() == [4, 3]
    assert np.bincount(dataset.test.labels).tolist() == [1, 2]
    kept = [split / "train" / "dog" / name for name in ("00.png", "02.PNG", "03.gif")]
    assert np.array_equal(dataset.train.images[4:], np.stack([to_array(file, SPEC) for file in kept]))


def test_hidden_names_are_ignored_and_other_files_left_out_and_counted(flat: Path) -> None:
    before = find_images(flat)
    assert before.left_out == ()
    write_images(flat / ".thumbnails", 2)
    (flat / "cat" / ".hidden.png").write_bytes(b"")
    assert find_images(flat) == before
    write_images(flat / "cat" / "more", 2)
    (flat / "dog" / "notes.txt").write_text("")
    (flat / "README").write_text("")
    (flat / "stray.png").write_bytes(b"")
    (flat / "dog" / "link.jpg").symlink_to("/not/there.jpg")
    found = find_images(flat)
    assert replace(found, left_out=()) == before
    assert [each.path.relative_to(flat).as_posix() for each in found.left_out] == [
        *("README", "stray.png", "cat/more", "dog/link.jpg", "dog/notes.txt")
    ]
    assert sum(each.files for each in found.left_out) == 6  # two in cat/more


def test_strays_beside_the_splits_are_counted(split: Path) -> None:
    write_images(split, 1)
    write_images(split / "val", 2)
    assert sum(each.files for each in find_images(split).left_out) == 3


def test_jpegs_are_taken_under_all_their_suffixes(flat: Path) -> None:
    for suffix in ("jfif", "jpe"):
        PIL.Image.new("L", (8, 8)).save(flat / "cat" / f"photo.{suffix}", "JPEG")
    assert len(find_images(flat)) == 17


def test_a_folder_called_train_with_images_in_it_is_a_class(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "car", 3)
    assert find_images(tmp_path).labels == ("car", "train")


def empty_class(folder: Path) -> None:
    for file in (folder / "cat").iterdir():
        file.write_bytes(b"")
        file.rename(file.with_suffix(".txt"))


def single_image(folder: Path) -> None:
    for file in sorted((folder / "cat").iterdir())[1:]:
        file.unlink()


def single_class(folder: Path) -> None:
    (folder / "cat").rename(folder / ".cat")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, r"cat: expected images \(.*.bmp .*\), got .txt$"),
        (single_image, r"cat: expected at least 2 images, one to test, got 1$"),
        (single_class, r"photos: expected a folder for each of at least two classes, got dog$"),
        (lambda folder: folder.rename(folder.with_name("other")), r"photos: expected a folder of images"),
    ],
)
def test_a_folder_that_is_not_a_data_set_is_refused(flat: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(flat)
    with pytest.raises(DatasetError, match=message):
        find_images(flat)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: write_images(folder / "extra", 1), r"photos: expected train, val, test and no other .* extra$"),
        (lambda folder: (folder / "test" / "cat").rename(folder / "cat.old"), r"no other folder, got cat.old$"),
        (
            lambda folder: write_images(folder / "test" / "cow", 1),
            r"test: expected the folders of .* got cat, cow, dog",
        ),
    ],
)
def test_splits_with_different_classes_are_refused(split: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(split)
    with pytest.raises(DatasetError, match=message):
        find_images(split)


def test_a_class_without_readable_images_is_refused_with_the_reason(split: Path) -> None:
    for file in (split / "val" / "dog").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"no image of class 'dog' in 'val' can be read: .*00.png: expected a BMP"):
        find_images(split).read(SPEC)
