"""Compares a package's network with the answers of its original, which the package brings, without TensorFlow."""

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.parity import TOLERANCE, Classify, compare
from pdeinfer.checks.report import Report
from pdeinfer.errors import ModelPackageError
from pdeinfer.package.package import MAX_FILE_BYTES, ONNX_FILE, REFERENCE_FILE, ModelPackage
from pdeinfer.predictor import Predictor

# Export writes 32. All run at once, so their number bounds the memory.
_MAX_IMAGES = 256
_MAX_NAME = 200  # characters

_ARRAYS = ("images", "probabilities", "original")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the original computes for some images.

    Attributes:
        images: uint8 (N, height, width, channels).
        probabilities: float32 (N, classes).
        original: its name for reports.
    """

    images: Array
    probabilities: Array
    original: str

    def compare(self, candidate: tuple[str, Classify], tolerance: float | None = TOLERANCE) -> Report:
        """Compare what a candidate computes for the images, in batches of several sizes, with the original.

        Args:
            candidate, tolerance: as in `parity.compare`.
        """
        return compare(
            (self.original, lambda _: self.probabilities),  # called once, with all images
            candidate,
            {"reference": self.images},
            batch_sizes=(1, 2, 7, len(self.images)),
            tolerance=tolerance,
        )


def compare_with_reference(package: ModelPackage, device: str) -> Report:
    """Compare what the float32 network computes on a device with its original.

    Raises:
        ModelPackageError: the package has no `reference.npz`, or that or the network is damaged.
        DeviceError: the device cannot be used.
    """
    reference = read_reference(package)
    with Predictor(package, device=device, batch_size=len(reference.images)) as predictor:
        info = predictor.info()
        name = f"{ONNX_FILE} on {info.device}, ONNX Runtime {info.versions['onnxruntime']}"
        return reference.compare((name, predictor.predict_proba))


def read_reference(package: ModelPackage) -> Reference:
    """Read the images and the probabilities in a package's `reference.npz`.

    Raises:
        ModelPackageError: the file is missing, damaged, too large, or does not fit the network.
    """
    content, path = package.read_file(REFERENCE_FILE), package.path / REFERENCE_FILE
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise ModelPackageError(f"{path}: expected at most {MAX_FILE_BYTES} bytes when it is unpacked, got {size}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            # A member that is no array is bytes.
            images, probabilities, original = map(np.asarray, map(arrays.__getitem__, _ARRAYS))
    # What zipfile and NumPy raise for files that are no archive, or hold other things than arrays.
    except (
        EOFError, KeyError, MemoryError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        if isinstance(error, ModelPackageError):
            raise
        raise ModelPackageError(f"{path} is damaged: {error}") from error
    preset = package.card.preset
    spec, count = preset.input, len(images) if images.ndim else 0
    for name, array, dtype, shape in (
        ("images", images, np.uint8, (count, spec.height, spec.width, spec.channels)),
        ("probabilities", probabilities, np.float32, (count, len(preset.labels))),
    ):
        if array.dtype != dtype or array.shape != shape or not count:
            expected = f"{np.dtype(dtype)} (N, {', '.join(map(str, shape[1:]))}), N at least 1"
            raise ModelPackageError(f"{path}: {name}: expected {expected}, got {array.dtype} {array.shape}")
    if count > _MAX_IMAGES:
        raise ModelPackageError(f"{path}: images: expected at most {_MAX_IMAGES}, got {count}")
    if original.dtype.kind != "U" or original.ndim:
        raise ModelPackageError(f"{path}: original: expected a text, got {original.dtype} {original.shape}")
    name = str(original)
    if len(name) > _MAX_NAME or not name.isprintable():
        raise ModelPackageError(
            f"{path}: original: expected at most {_MAX_NAME} printable characters, got {name[:_MAX_NAME]!r}"
        )
    return Reference(images, probabilities, name)
