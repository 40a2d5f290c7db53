"""The images of a training, found again from its record."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.datasets import (
    Dataset,
    DatasetName,
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
from pdeinfer.errors import DatasetError, ImageError
from pdeinfer.images.convert import to_array
from pdeinfer.spec.presets import PRESETS, Preset
from pdeinfer.spec.training_record import ImagesRecord, TrainingRecord
from tests.datasets.folders import files_of, write_images

PRESET = PRESETS["digits-pde"]
SPEC = PRESET.input


def preset_of(labels: tuple[str, ...]) -> Preset:
    return replace(PRESET, labels=labels)


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
