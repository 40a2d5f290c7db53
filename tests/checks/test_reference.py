"""Packages are compared with the answers of their originals, without TensorFlow."""

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdeinfer.checks import reference
from pdeinfer.checks.reference import compare_with_reference, read_reference
from pdeinfer.errors import DeviceError, ModelPackageError
from pdeinfer.export.reference import reference_images
from pdeinfer.package import zoo
from pdeinfer.package.package import REFERENCE_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from tests.conftest import GREY_PRESET, RGB_PRESET

IMAGES = np.zeros((3, 8, 8, 1), np.uint8)
PROBABILITIES = np.full((3, 10), 0.1, np.float32)


def with_reference(folder: Path, content: bytes) -> ModelPackage:
    """Return the package in a folder with another reference, which its card lists."""
    (folder / REFERENCE_FILE).write_bytes(content)
    write_card(folder, ModelPackage.read(folder).card)
    return ModelPackage.read(folder)


def npz(**changes: Any) -> bytes:
    arrays = {"images": IMAGES, "probabilities": PROBABILITIES, "original": np.array("the original"), **changes}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **{name: array for name, array in arrays.items() if array is not None})
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in members.items():
            written.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(shape: str) -> bytes:
    """Return an array's file whose header states a shape, and which holds 8 bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


@pytest.mark.parametrize("name", zoo.names())
def test_bundled_models_equal_their_originals_at_every_batch_size(name: str) -> None:
    report = compare_with_reference(zoo.load(name), "cpu")

    assert report.passed
    assert {row.batch_size for row in report.comparisons} == {1, 2, 7, 32}
    assert report.reference.startswith("Keras on TensorFlow")


@pytest.mark.parametrize("name", zoo.names())
def test_bundled_references_hold_the_images_of_an_export(name: str) -> None:
    package = zoo.load(name)
    found = read_reference(package)

    assert np.array_equal(found.images, reference_images(package.card.preset.input))
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (package.path / REFERENCE_FILE).stat().st_size < 50_000


@pytest.mark.parametrize("preset", [GREY_PRESET, RGB_PRESET], ids=["grey", "rgb"])
def test_reference_images_differ_and_hold_digits_noise_and_extremes(preset: Any) -> None:
    spec = preset.input
    images = reference_images(spec)

    assert (images.dtype, images.shape) == (np.uint8, (32, spec.height, spec.width, spec.channels))
    assert len({image.tobytes() for image in images}) == 32
    assert {0, 255} <= {int(image.min()) for image in images if image.min() == image.max()}
    assert sum(len(np.unique(image)) > 3 for image in images) >= 20


def test_a_network_that_differs_does_not_pass(package: Path) -> None:
    wrong = np.eye(3, 10, dtype=np.float32)

    report = compare_with_reference(with_reference(package, npz(probabilities=wrong)), "cpu")

    assert not report.passed


def test_a_package_of_an_earlier_version_has_no_reference(package: Path) -> None:
    with pytest.raises(ModelPackageError, match=REFERENCE_FILE):
        compare_with_reference(ModelPackage.read(package), "cpu")


def test_a_device_that_cannot_be_used_is_a_device_error(package: Path) -> None:
    with pytest.raises(DeviceError):
        compare_with_reference(with_reference(package, npz()), "cuda:99")


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"not an archive",
        lambda: npz()[:-40],
        lambda: npz()[:-100] + bytes(60) + npz()[-40:],
        lambda: npz(images=None),
        lambda: npz(images=IMAGES.astype(np.int16)),
        lambda: npz(images=IMAGES[:, :7]),
        lambda: npz(images=IMAGES[:2]),
        lambda: npz(images=IMAGES[:0], probabilities=PROBABILITIES[:0]),
        lambda: npz(images=np.uint8(3)),
        lambda: npz(probabilities=PROBABILITIES.astype(np.float64)),
        lambda: npz(probabilities=PROBABILITIES[:, :9]),
        lambda: npz(original=np.array(["a", "b"])),
        lambda: npz(original=np.array(3)),
        lambda: npz(original=np.array("x" * 201)),
        lambda: npz(original=np.array("Keras\nparity: ok")),
        lambda: npz(original=np.array("Keras\x1b[8m")),
        lambda: npz(images=np.repeat(IMAGES, 86, axis=0), probabilities=np.repeat(PROBABILITIES, 86, axis=0)),
        lambda: npz(original=np.array(object())),
        lambda: archive(images=npy("(10000000000000000,)"), probabilities=b"", original=b""),
        lambda: archive(images=npy("(1000,)"), probabilities=b"", original=b""),
        lambda: archive(images=npy("__import__('os')"), probabilities=b"", original=b""),
        lambda: archive(images=pickle.dumps(3), probabilities=b"", original=b""),
    ],
)
def test_a_damaged_or_foreign_file_is_a_model_package_error(package: Path, make: Callable[[], bytes]) -> None:
    with pytest.raises(ModelPackageError, match=REFERENCE_FILE):
        read_reference(with_reference(package, make()))


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MAX_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(np, "load", None)
    content = npz(images=np.zeros((1 << 14, 8, 8, 1), np.uint8))
    assert len(content) < 10_000

    with pytest.raises(ModelPackageError, match="1048576"):
        read_reference(with_reference(package, content))


def test_a_changed_or_linked_file_is_refused(package: Path, tmp_path: Path) -> None:
    changed = with_reference(package, npz())
    (package / REFERENCE_FILE).write_bytes(npz(probabilities=PROBABILITIES[::-1] * 2))
    with pytest.raises(ModelPackageError, match="damaged"):
        read_reference(changed)
    shutil.move(package / REFERENCE_FILE, tmp_path / "elsewhere.npz")
    (package / REFERENCE_FILE).symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(ModelPackageError, match="outside"):
        read_reference(changed)
