"""Reading the standard data sets from synthetic files."""

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pdeinfer.datasets import Split, hold_out, load_dataset
from pdeinfer.datasets.splits import choice_by_name
from pdeinfer.datasets.standard import load_test_images
from pdeinfer.errors import DatasetError

MNIST_COUNTS = {"train": 60_000, "t10k": 10_000}
CIFAR10_FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def write_mnist(folder: Path, name_of: Callable[[str], str] = lambda name: name) -> None:
    """Write blank images labelled 0, 1, 2, ..., 9, 0, ...; image i has the value i % 256 in row 2, column 5."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in MNIST_COUNTS.items():
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 2, 5] = np.arange(count) % 256
        contents = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28) + images.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">2i", 2049, count) + bytes(i % 10 for i in range(count)),
        }
        for name, content in contents.items():
            path = folder / name_of(name)
            path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_cifar10(folder: Path) -> None:
    """Write images whose red plane is 1, green plane 2 and blue plane 3, with a 9 at row 2, column 5 of red."""
    planes = np.repeat(np.array([1, 2, 3], np.uint8), 1024).reshape(3, 32, 32)
    planes[0, 2, 5] = 9
    for number, name in enumerate(CIFAR10_FILES):
        record = bytes([number]) + planes.tobytes()
        (folder / name).write_bytes(record * 10_000)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder)
    return folder


@pytest.mark.parametrize(
    "name_of",
    [lambda name: name, lambda name: f"{name}.gz", lambda name: name.replace("-idx", ".idx")],
    ids=["plain", "gzipped", "with-a-dot"],
)
def test_mnist_is_read_from_idx_files_one_level_down(tmp_path: Path, name_of: Callable[[str], str]) -> None:
    write_mnist(tmp_path / "somewhere", name_of)
    dataset = load_dataset("mnist", tmp_path)
    for split, count in ((dataset.train, 60_000), (dataset.test, 10_000)):
        assert split.images.shape == (count, 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.images[1000, :, :, 0].nonzero() == (2, 5)
        assert split.images[1000, 2, 5, 0] == 1000 % 256
        assert split.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_two_data_sets_with_the_same_file_names_are_refused(mnist: Path, tmp_path: Path) -> None:
    for name in ("fashion-mnist", "mnist"):
        (tmp_path / name).symlink_to(mnist)
    with pytest.raises(DatasetError, match=r"mnist in one of its folders, found some in fashion-mnist and mnist$"):
        load_dataset("mnist", tmp_path)
    assert len(load_dataset("mnist", tmp_path / "mnist").test) == 10_000


def test_cifar10_planes_become_the_last_axis(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.train.images.shape == (50_000, 32, 32, 3)
    assert dataset.train.images[0, 0, 0].tolist() == [1, 2, 3]
    assert dataset.train.images[0, 2, 5].tolist() == [9, 2, 3]
    assert dataset.train.labels[::10_000].tolist() == [0, 1, 2, 3, 4]
    assert set(dataset.test.labels) == {5}


def test_the_test_images_of_cifar10_need_no_files_of_its_training_images(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    expected = load_dataset("cifar10", tmp_path).test
    for name in CIFAR10_FILES[:-1]:
        (tmp_path / name).unlink()
    found = load_test_images("cifar10", tmp_path)
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.labels, expected.labels)
    with pytest.raises(DatasetError, match=r"data_batch_1\.bin"):
        load_dataset("cifar10", tmp_path)


def test_cifar10_for_python_is_refused_with_the_version_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").touch()
    with pytest.raises(DatasetError, match="binary version"):
        load_test_images("cifar10", tmp_path)


def test_digits_come_without_a_folder_and_are_scaled_to_bytes() -> None:
    dataset = load_dataset("digits", None)
    assert dataset.train.images.shape[1:] == (8, 8, 1)
    assert len(dataset.train) + len(dataset.test) == 1797
    assert dataset.train.images.max() == 255
    assert np.array_equal(load_dataset("digits", None).test.images, dataset.test.images)


def damage_missing(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def damage_truncated(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def damage_magic_number(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(b"\1" + path.read_bytes()[1:])


def damage_label(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")


def damage_too_long(folder: Path) -> None:
    with (folder / "t10k-labels-idx1-ubyte").open("ab") as file:
        file.write(b"0")


def damage_gzip(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, r"no file t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte.gz\)"),
        (damage_truncated, r"t10k-labels-idx1-ubyte: expected 10,008 bytes, got 10,007"),
        (damage_too_long, r"t10k-labels-idx1-ubyte: expected 10,008 bytes, got more"),
        (damage_magic_number, r"t10k-labels-idx1-ubyte: expected an IDX file of unsigned bytes of shape \(10000,\)"),
        (damage_label, r"t10k-labels-idx1-ubyte: expected labels 0 to 9, got 10"),
        (damage_gzip, r"t10k-labels-idx1-ubyte.gz: cannot be read"),
    ],
)
def test_damaged_mnist_is_an_error_that_names_the_file(
    mnist: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    for path in mnist.iterdir():
        target = tmp_path / path.name
        if "labels" in path.name:
            target.write_bytes(path.read_bytes())
        else:
            target.symlink_to(path)
    damage(tmp_path)
    with pytest.raises(DatasetError, match=message):
        load_dataset("mnist", tmp_path)


def test_cifar10_label_above_nine_is_an_error(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    with (tmp_path / "data_batch_3.bin").open("r+b") as file:
        file.write(b"\x0a")
    with pytest.raises(DatasetError, match=r"data_batch_3.bin: expected labels 0 to 9, got 10"):
        load_dataset("cifar10", tmp_path)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected a folder with the files of mnist"):
        load_dataset("mnist", tmp_path / "nowhere")


@pytest.mark.parametrize("error", [Exception("URL fetch failure"), OSError("no route")])
def test_a_failed_download_is_an_error_that_names_the_way_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    mnist = SimpleNamespace(load_data=fail)
    keras = SimpleNamespace(datasets=SimpleNamespace(mnist=mnist, cifar10=mnist))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(DatasetError, match="--data-dir"):
        load_dataset("mnist", None)


def test_a_bug_in_a_download_is_not_taken_for_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise TypeError("a bug")

    mnist = SimpleNamespace(load_data=fail)
    keras = SimpleNamespace(datasets=SimpleNamespace(mnist=mnist, cifar10=mnist))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(TypeError, match="a bug"):
        load_dataset("mnist", None)


def test_other_images_do_not_change_a_choice_by_name() -> None:
    names, labels = [f"{number}.jpg" for number in range(2000)], np.arange(2000) % 2
    chosen = choice_by_name(names, labels, 0.2, "test")
    for label in range(2):
        assert 0.15 < chosen[labels == label].mean() < 0.25
    assert np.array_equal(choice_by_name(names[500:900], labels[500:900], 0.2, "test"), chosen[500:900])
    assert not np.array_equal(choice_by_name(names, labels, 0.2, "val"), chosen)


@pytest.mark.parametrize(("images", "fraction", "expected"), [(1, 0.9, 0), (2, 0.0, 1), (2, 1.0, 1), (9, 1.0, 8)])
def test_a_choice_by_name_has_an_image_of_two_and_never_all(images: int, fraction: float, expected: int) -> None:
    names = list(map(str, range(images)))
    assert choice_by_name(names, np.zeros(images, int), fraction, "test").sum() == expected


def test_hold_out_takes_the_same_share_of_each_class_and_loses_nothing() -> None:
    labels = np.repeat(np.arange(4), [100, 50, 20, 10])
    images = np.arange(180, dtype=np.uint8).reshape(180, 1, 1, 1)
    rest, held_out = hold_out(Split(images, labels), 0.2)
    assert np.bincount(held_out.labels).tolist() == [20, 10, 4, 2]
    assert sorted([*rest.images.ravel(), *held_out.images.ravel()]) == list(range(180))
    for split in (rest, held_out):
        assert np.array_equal(split.labels, labels[split.images.ravel()])
