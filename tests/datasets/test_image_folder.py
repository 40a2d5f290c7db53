"""Folders of images: layouts, splits, files left out, refusals."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.datasets import (
    Dataset,
    DatasetName,
    ImageFolder,
    Split,
    find_images,
    find_recorded_folder,
    hold_out,
    load_test_split,
    load_training_images,
    load_validation_split,
    recorded,
    sample_indices,
)
from pdeinfer.errors import DatasetError, ImageError, ImageTooCostlyError
from pdeinfer.images.convert import to_array
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import ImagesRecord, TrainingRecord
from tests.images.image_makers import gif_of_comments, heic

PRESET = PRESETS["digits-pde"]
SPEC = PRESET.input


def write_images(folder: Path, count: int) -> None:
    """Write images 0, 1, 2, ... of different sizes, modes and formats."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        mode, suffix = [("L", "png"), ("RGB", "jpg"), ("RGBA", "PNG"), ("P", "gif")][number % 4]
        pixels = rng.integers(0, 256, (9 + number, 30 - number), dtype=np.uint8)
        PIL.Image.fromarray(pixels).convert(mode).save(folder / f"{number:02}.{suffix}")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """photos/dog with 10 images and photos/cat with 5."""
    folder = tmp_path / "photos"
    write_images(folder / "dog", 10)
    write_images(folder / "cat", 5)
    return folder


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """photos/train, photos/val and photos/test with 4, 3 and 2 images of each of dog and cat."""
    folder = tmp_path / "photos"
    for name, count in (("train", 4), ("val", 3), ("test", 2)):
        for label in ("dog", "cat"):
            write_images(folder / name / label, count)
    return folder


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


def preset_of(labels: tuple[str, ...]) -> Preset:
    return replace(PRESET, labels=labels)


def test_a_fifth_of_each_class_is_held_out_for_the_test_the_same_every_time(flat: Path) -> None:
    found = find_images(flat)
    assert found.labels == ("cat", "dog")
    assert found.is_test_held_out
    assert found.files.keys() == {"train", "test"}
    files = [file for name in ("train", "test") for file, _ in found.files[name]]
    assert sorted(files) == sorted(path for path in flat.rglob("*") if path.is_file())
    assert find_images(flat) == found


def files_of(folder: ImageFolder) -> dict[str, set[str]]:
    return {
        name: {path.relative_to(folder.path).as_posix() for path, _ in files} for name, files in folder.files.items()
    }


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


def record_of(dataset: DatasetName, images: ImagesRecord | None = None) -> TrainingRecord:
    return TrainingRecord(preset="", recipe={"dataset": dataset}, seed=0, precision="float32", images=images)


def without_contents(record: TrainingRecord) -> TrainingRecord:
    """Return the record as an earlier version would have written it."""
    assert record.images is not None
    splits = {name: replace(split, contents_sha256=None) for name, split in record.images.splits.items()}
    return replace(record, images=replace(record.images, splits=splits))


class TestRecorded:
    """The test images of a training, found again from its record."""

    @staticmethod
    def record(folder: Path) -> TrainingRecord:
        return record_of("folder", find_images(folder).record())

    def test_the_same_folder_gives_the_same_test_images(self, flat: Path) -> None:
        test = load_test_split(self.record(flat), preset_of(("cat", "dog")), flat)
        expected, _ = find_images(flat).read_split("test", SPEC)
        assert np.array_equal(test.images, expected.images)
        assert np.array_equal(test.labels, expected.labels)

    def test_a_moved_folder_is_the_same(self, flat: Path, tmp_path: Path) -> None:
        record = self.record(flat)
        labels = [label for _, label in find_images(flat).files["test"]]
        moved = flat.rename(tmp_path / "elsewhere")
        assert load_test_split(record, preset_of(("cat", "dog")), moved).labels.tolist() == labels

    def test_the_splits_of_an_earlier_version_are_found_again(self, flat: Path) -> None:
        found = find_images(flat, 0.1, split_method="position")
        images = found.record()
        assert (images.split_method, images.split_seed) == (None, 0)
        assert [len(found.files[name]) for name in ("train", "val", "test")] == [10, 2, 3]
        again = find_recorded_folder(record_of("folder", images), preset_of(("cat", "dog")), flat)
        assert again == found
        assert files_of(again) != files_of(find_images(flat, 0.1))

    @pytest.mark.parametrize("layout", ["flat", "split"])
    def test_folders_that_are_no_class_are_left_out(self, layout: str, request: pytest.FixtureRequest) -> None:
        folder = request.getfixturevalue(layout)
        record, before = self.record(folder), find_images(folder)
        places = [folder] if layout == "flat" else [folder, folder / "test"]
        for place in places:
            (place / "report").mkdir()
            (place / "report" / "index.html").touch()
            write_images(place / "report" / "more", 2)
        found = find_recorded_folder(record, preset_of(("cat", "dog")), folder)
        assert found is not None
        assert files_of(found) == files_of(before)
        assert [(each.path, each.files) for each in found.left_out] == [(place / "report", 3) for place in places]

    def test_a_folder_with_other_test_images_is_refused(self, flat: Path) -> None:
        record = self.record(flat)
        write_images(flat / "dog", 20)
        with pytest.raises(DatasetError, match=r"expected the test images of the training"):
            load_test_split(record, preset_of(("cat", "dog")), flat)

    def test_other_photos_of_the_same_names_are_refused(self, flat: Path) -> None:
        record, preset = self.record(flat), preset_of(("cat", "dog"))
        (file, _), *_ = find_images(flat).files["test"]
        file.write_bytes(file.read_bytes()[::-1])  # of the same size
        assert find_recorded_folder(record, preset, flat) is None
        with pytest.raises(DatasetError, match=r"expected the test images of the training, \d files, .* other names"):
            load_test_split(record, preset, flat)

    def test_a_record_of_an_earlier_version_knows_only_names(self, flat: Path) -> None:
        record, preset = without_contents(self.record(flat)), preset_of(("cat", "dog"))
        (file, _), *_ = find_images(flat).files["test"]
        file.write_bytes(file.read_bytes()[::-1])
        assert find_recorded_folder(record, preset, flat) is not None
        file.unlink()
        assert find_recorded_folder(record, preset, flat) is None

    def test_a_training_of_an_earlier_version_counted_links(self, flat: Path) -> None:
        file, *_ = sorted((flat / "cat").iterdir())
        for number in range(10):
            (flat / "cat" / f"link-{number}.png").symlink_to(file)
        found = find_images(flat, keep_links=True)
        assert len(found) == 25
        record = without_contents(record_of("folder", found.record()))
        assert find_recorded_folder(record, preset_of(("cat", "dog")), flat) == found
        assert find_recorded_folder(self.record(flat), preset_of(("cat", "dog")), flat) == find_images(flat)

    def test_a_file_that_cannot_be_read_is_recorded(self, flat: Path) -> None:
        found = find_images(flat)
        before = found.record()
        found.files["train"][0][0].unlink()
        assert found.record() != before

    def test_more_training_images_do_not_matter_if_the_test_has_its_own_folder(self, split: Path) -> None:
        record = self.record(split)
        write_images(split / "train" / "dog", 6)
        assert len(load_test_split(record, preset_of(("cat", "dog")), split)) == 4

    def test_other_classes_are_refused(self, flat: Path) -> None:
        with pytest.raises(DatasetError, match="expected the folders cat, cow, got cat, dog"):
            load_test_split(self.record(flat), preset_of(("cat", "cow")), flat)

    def test_a_network_without_a_record_is_an_error(self) -> None:
        with pytest.raises(DatasetError, match="digits-pde: no record of its training"):
            load_test_split(None, PRESET, None)

    def test_a_record_without_its_images_is_an_error(self, flat: Path) -> None:
        with pytest.raises(DatasetError, match="expected the test images of the training, which are not rec"):
            load_test_split(record_of("folder"), preset_of(("cat", "dog")), flat)

    @pytest.mark.parametrize("dataset", ["mnist", "cifar10", "folder"])
    def test_nothing_is_downloaded(self, dataset: DatasetName) -> None:
        with pytest.raises(DatasetError, match="digits-pde: --data-dir must name the folder"):
            load_test_split(record_of(dataset), PRESET, None)

    def test_validation_images_without_a_folder_name_the_option_of_export(self) -> None:
        with pytest.raises(DatasetError, match="digits-pde: --calibrate DIR must name the folder"):
            load_validation_split(record_of("mnist"), PRESET, None)

    def test_images_of_another_shape_or_number_of_classes_are_refused(self) -> None:
        with pytest.raises(DatasetError, match=r"expected images of shape \(28, 28, 1\) and 10 classes"):
            load_test_split(record_of("digits"), PRESETS["mnist-pde"], None)
        with pytest.raises(DatasetError, match=r"and 2 classes, got a data set of \(8, 8, 1\) and 10"):
            load_test_split(record_of("digits"), preset_of(("no", "yes")), None)

    def test_the_validation_images_are_those_of_the_training(self, flat: Path) -> None:
        record = self.record(flat)
        record = replace(record, recipe={**record.recipe, "validation_fraction": 0.3})
        found = load_validation_split(record, preset_of(("cat", "dog")), flat)
        train, _ = find_images(flat).read_split("train", SPEC)
        _, expected = hold_out(train, 0.3)
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)

    def test_a_folder_of_validation_images_is_taken_as_it_is(self, split: Path) -> None:
        found = load_validation_split(self.record(split), preset_of(("cat", "dog")), split)
        expected, _ = find_images(split).read_split("val", SPEC)
        assert np.array_equal(found.images, expected.images)

    @pytest.mark.parametrize("is_recorded_in_full", [True, False])
    def test_other_validation_images_than_the_training_s_are_refused(
        self, is_recorded_in_full: bool, split: Path
    ) -> None:
        record, preset = self.record(split), preset_of(("cat", "dog"))
        record = record if is_recorded_in_full else without_contents(record)
        shutil.copyfile(split / "train" / "dog" / "00.png", split / "val" / "dog" / "from-train.png")
        with pytest.raises(
            DatasetError, match=r"the val images of the training, 6 files, got 7 files with other names"
        ):
            load_validation_split(record, preset, split)
        assert len(load_training_images(record, preset, split)) == 8
        shutil.copyfile(split / "test" / "dog" / "00.png", split / "train" / "dog" / "from-test.png")
        with pytest.raises(DatasetError, match=r"the train images of the training, 8 files, got 9 files with other"):
            load_training_images(record, preset, split)

    def test_no_training_images_replace_a_folder_of_validation_images_that_is_gone(self, split: Path) -> None:
        record = self.record(split)
        record = replace(record, recipe={**record.recipe, "validation_fraction": 0.1})
        shutil.rmtree(split / "val")
        with pytest.raises(DatasetError, match=r"expected the val images of the training, 6 files, got none"):
            load_validation_split(record, preset_of(("cat", "dog")), split)

    def test_a_training_without_validation_images_has_none(self) -> None:
        record = record_of("digits")
        with pytest.raises(DatasetError, match="held out no validation images"):
            load_validation_split(replace(record, recipe={**record.recipe, "validation_fraction": 0.0}), PRESET, None)


class TestTrainingImages:
    """Images for calibration: those that the network may have learnt from."""

    def test_a_recorded_folder_gives_its_training_images(self, flat: Path) -> None:
        found = load_training_images(TestRecorded.record(flat), preset_of(("cat", "dog")), flat)
        expected, _ = find_images(flat).read_split("train", SPEC)
        assert np.array_equal(found, expected.images)

    def test_a_folder_that_is_not_the_recorded_one_is_refused(self, flat: Path) -> None:
        record = TestRecorded.record(flat)
        write_images(flat / "dog", 20)
        with pytest.raises(DatasetError, match=r"expected the test images of the training"):
            load_training_images(record, preset_of(("cat", "dog")), flat)
        with pytest.raises(DatasetError, match=r"expected the folders cat, dog, got none"):
            load_training_images(record, preset_of(("cat", "dog")), flat / "dog")

    @pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
    def test_a_standard_data_set_gives_its_training_images(
        self, dataset: DatasetName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train, test = (Split(np.full((2, 8, 8, 1), value, np.uint8), np.zeros(2, np.int64)) for value in (1, 2))
        monkeypatch.setattr(recorded, "load_dataset", lambda *_: Dataset(train, test))
        write_images(tmp_path, 1)  # an image beside the files is ignored
        for name in ("t10k-labels-idx1-ubyte.gz", "test_batch.bin"):
            (tmp_path / "files").mkdir(exist_ok=True)
            (tmp_path / "files" / name).touch()
        found = load_training_images(record_of(dataset), PRESET, tmp_path)
        assert np.array_equal(found, train.images)

    @pytest.mark.parametrize("dataset", [None, "digits"])
    def test_without_a_recorded_folder_classes_give_their_training_images(
        self, dataset: DatasetName | None, flat: Path
    ) -> None:
        record = None if dataset is None else record_of(dataset)
        expected, _ = find_images(flat).read_split("train", SPEC)
        assert np.array_equal(load_training_images(record, PRESET, flat), expected.images)

    @pytest.mark.parametrize("dataset", [None, "cifar10"])
    def test_image_files_are_all_taken(self, dataset: DatasetName | None, flat: Path) -> None:
        record = None if dataset is None else record_of(dataset)
        files = sorted((flat / "dog").iterdir())
        (flat / "dog" / "._00.png").write_bytes(b"what macOS leaves there")
        found = load_training_images(record, PRESET, flat / "dog")
        assert np.array_equal(found, np.stack([to_array(file, SPEC) for file in files]))

    @pytest.mark.parametrize("is_recorded", [True, False])
    def test_a_sample_decodes_no_other_files(self, is_recorded: bool, flat: Path) -> None:
        record = TestRecorded.record(flat) if is_recorded else None
        preset, files = preset_of(("cat", "dog")), find_images(flat).files["train"]
        chosen = [files[index][0] for index in sample_indices(len(files), 4)]
        expected = load_training_images(record, preset, flat)[sample_indices(len(files), 4)]
        for file, _ in files:
            if file not in chosen:
                file.write_bytes(b"x")
        assert np.array_equal(load_training_images(record, preset, flat, 4), expected)

    def test_a_sample_may_have_no_readable_image_of_a_class(self, flat: Path) -> None:
        files = find_images(flat).files["train"]
        chosen = [files[index] for index in sample_indices(len(files), 8)]
        for file, label in chosen:
            if label == 0:
                file.write_bytes(b"x")
        dogs = sum(label for _, label in chosen)
        assert 0 < dogs < 8
        assert len(load_training_images(None, PRESET, flat, 8)) == dogs

    def test_an_image_that_cannot_be_read_is_named(self, flat: Path) -> None:
        (flat / "dog" / "broken.png").write_bytes(b"x")
        with pytest.raises(ImageError, match=r"broken.png: expected a BMP"):
            load_training_images(None, PRESET, flat / "dog")

    def test_a_folder_without_images_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("")
        with pytest.raises(DatasetError, match=r"expected images \(.*.bmp .*\), or a folder of them"):
            load_training_images(None, PRESET, tmp_path)
        with pytest.raises(DatasetError, match=r"none: expected a folder of images$"):
            load_training_images(None, PRESET, tmp_path / "none")
