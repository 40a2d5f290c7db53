"""What a Predictor refuses, and that the error names it."""

import abc
import errno
import http.client
import io
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pdeinfer.errors import DeviceError, ImageError, ModelNotFoundError, ModelPackageError, PredictorClosedError
from pdeinfer.package.package import DIGEST_FILE, ONNX_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.predictor import Predictor
from pdeinfer.runtime.session import Session
from tests.conftest import GREY_PRESET
from tests.images.image_makers import encode
from tests.predictor.helpers import IMAGES, repackage


class TimeLimitError(Exception):
    """What a signal's handler raises in a job that takes too long, as those of Celery and RQ do."""


class MixedTimeLimitError(Exception, abc.ABC):
    """The same, of a class with a mixin of the standard library."""


class ImageLibraryError(EOFError):
    """What a file object of another library may raise."""


def failing_file(method: str, error: Exception) -> Any:
    def fail(*_: int) -> None:
        raise error

    return type("Failing", (io.BytesIO,), {method: fail})()


class TestErrors:
    """Errors that name the input."""

    def test_an_image_in_a_list_is_named_by_its_position(self, predictor: Predictor) -> None:
        images = [*IMAGES[:2], IMAGES[2].astype(np.float32), *IMAGES[3:]]
        with pytest.raises(ImageError, match=r"^image 3 of 10: .*float32"):
            predictor.predict(images)
        with pytest.raises(ImageError, match=r"^image 3: .*float32"):
            predictor.predict(iter(images))

    def test_a_path_in_a_list_is_named(self, predictor: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "cut.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(ImageError, match=rf"^image 2 of 2 \({re.escape(str(path))}\): "):
            predictor.predict([IMAGES[0], path])

    def test_the_predictions_before_an_iterable_that_fails_come_first(self, predictor: Predictor) -> None:
        def images() -> Iterator[np.ndarray]:
            yield from IMAGES[:3]
            raise OSError("the camera is gone")

        iterator = predictor.predict_iter(images(), on_error="yield")
        assert [next(iterator) for _ in range(3)] == predictor.predict(IMAGES[:3])
        with pytest.raises(OSError, match="camera"):
            next(iterator)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("threshold", [0, 0.9])
    def test_nan_and_infinity_are_the_error_of_their_image_alone(
        self, value: float, threshold: float, package_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Predictor(package_folder, device="cpu", threads=1, batch_size=4, threshold=threshold) as predictor:
            expected = predictor.predict(IMAGES)
            run = predictor._run

            def run_badly(session: Session, images: np.ndarray) -> np.ndarray:
                scores = run(session, images)
                scores[(images == IMAGES[2]).all(axis=(1, 2, 3)), 7] = value
                return scores

            monkeypatch.setattr(predictor, "_run", run_badly)
            for call in (predictor.predict, lambda image: predictor.rank(predictor.predict_proba(image[None])[0])):
                with pytest.raises(ModelPackageError, match="tiny-grey computed NaN or infinity"):
                    call(IMAGES[2])
            with pytest.raises(ModelPackageError):
                predictor.predict(IMAGES)
            iterator = predictor.predict_iter(IMAGES)
            assert [next(iterator), next(iterator)] == expected[:2]
            with pytest.raises(ModelPackageError):
                next(iterator)
            outcomes = list(predictor.predict_iter(IMAGES, on_error="yield"))
        assert isinstance(outcomes.pop(2), ModelPackageError)
        assert outcomes == expected[:2] + expected[3:]

    def test_the_path_of_an_image_for_which_the_network_computes_nan_is_named(
        self, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        monkeypatch.setattr(predictor, "_run", lambda _, images: np.full((len(images), 10), np.nan, np.float32))
        for images in (path, [path]):
            with pytest.raises(ModelPackageError, match=f"{re.escape(str(path))}$"):
                predictor.predict(images)

    @pytest.mark.parametrize("image", [None, 3, np.zeros(8, np.uint8), np.zeros((1, 1, 8, 8, 1), np.uint8)])
    def test_what_is_neither_an_image_nor_an_iterable_of_images_is_an_image_error(
        self, predictor: Predictor, image: object
    ) -> None:
        with pytest.raises(ImageError):
            predictor.predict(image)

    @pytest.mark.parametrize(
        ("images", "found"),
        [
            (IMAGES.astype(np.float32), r"float32 \(10, 8, 8, 1\)"),
            (IMAGES.astype(np.int16), r"int16 \(10, 8, 8, 1\)"),
            (IMAGES[0], r"uint8 \(8, 8, 1\)"),
            (IMAGES[..., 0], r"uint8 \(10, 8, 8\)"),
            (IMAGES[:, :7], r"uint8 \(10, 7, 8, 1\)"),
            (np.zeros((2, 8, 8, 3), np.uint8), r"uint8 \(2, 8, 8, 3\)"),
            (np.zeros((0, 9, 8, 1), np.uint8), r"uint8 \(0, 9, 8, 1\)"),
            (np.uint8(3), "uint8"),
            (IMAGES.tolist(), "list"),
            (None, "NoneType"),
        ],
    )
    def test_probabilities_need_the_exact_shape_and_dtype(
        self, predictor: Predictor, images: object, found: str
    ) -> None:
        with pytest.raises(ImageError, match=rf"\(N, 8, 8, 1\), got {found}$"):
            predictor.predict_proba(images)

    @pytest.mark.parametrize("top_k", [0, -1])
    def test_top_k_below_one_is_a_value_error(self, predictor: Predictor, top_k: int) -> None:
        scores = predictor.predict_proba(IMAGES[:1])[0]
        for call, argument in ((predictor.predict, []), (predictor.predict_iter, []), (predictor.rank, scores)):
            with pytest.raises(ValueError, match=f"top_k .* {top_k}"):
                call(argument, top_k=top_k)

    @pytest.mark.parametrize("top_k", [1.0, "3", None, True])
    def test_top_k_of_another_type_is_a_type_error(self, predictor: Predictor, top_k: object) -> None:
        scores = predictor.predict_proba(IMAGES[:1])[0]
        for call, argument in ((predictor.predict, []), (predictor.predict_iter, []), (predictor.rank, scores)):
            with pytest.raises(TypeError, match=f"top_k .* {top_k!r}"):
                call(argument, top_k=top_k)

    @pytest.mark.parametrize("shape", [(3,), (11,), (1, 10), ()])
    def test_scores_of_another_number_than_the_classes_are_a_value_error(
        self, predictor: Predictor, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ValueError, match=r"\(10,\)"):
            predictor.rank(np.zeros(shape, np.float32))

    @pytest.mark.parametrize("scores", [{}, [1j] * 10, (each for each in range(10)), ["one"] * 10])
    def test_scores_that_are_no_numbers_are_a_value_error(self, predictor: Predictor, scores: object) -> None:
        with pytest.raises(ValueError, match="scores must be 10 numbers, not"):
            predictor.rank(scores)

    @pytest.mark.filterwarnings("error")
    def test_scores_beyond_float32_are_infinite(self, predictor: Predictor) -> None:
        with pytest.raises(ModelPackageError, match="infinity"):
            predictor.rank([1e300] * 10)

    def test_scores_in_a_list_are_ranked(self, predictor: Predictor) -> None:
        scores = predictor.predict_proba(IMAGES[:1])[0]
        assert predictor.rank(scores.tolist()) == predictor.rank(scores)

    @pytest.mark.parametrize("model", [None, 3, b"digits-pde"])
    def test_a_model_of_another_type_is_a_type_error(self, model: object) -> None:
        expected = f"a name, a path or a ModelPackage, not {type(model).__name__}"
        with pytest.raises(TypeError, match=expected):
            Predictor(model)

    @pytest.mark.parametrize("argument", ["threads", "batch_size", "gpu_mem_limit"])
    def test_threads_batch_size_and_memory_are_positive_integers(self, package_folder: Path, argument: str) -> None:
        with pytest.raises(ValueError, match=argument):
            Predictor(package_folder, **{argument: 0})
        with pytest.raises(TypeError, match=argument):
            Predictor(package_folder, **{argument: 2.5})

    def test_there_are_at_most_1024_threads(self, package_folder: Path) -> None:
        with pytest.raises(ValueError, match="threads must be at most 1024, not 1025"):
            Predictor(package_folder, threads=1025)

    def test_a_precision_of_another_type_is_a_value_error(self, package_folder: Path) -> None:
        with pytest.raises(ValueError, match="precision must be one of"):
            Predictor(package_folder, precision=["float32"])

    def test_an_unknown_model_and_an_unknown_device_are_named(self, package_folder: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="'nope'"):
            Predictor("nope")
        with pytest.raises(DeviceError, match="'tpu'"):
            Predictor(package_folder, device="tpu")

    def test_a_damaged_file_is_not_loaded(self, package_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(package_folder, tmp_path / "p"))
        content = bytearray((folder / ONNX_FILE).read_bytes())
        content[-1] ^= 1
        (folder / ONNX_FILE).write_bytes(content)
        with pytest.raises(ModelPackageError, match="SHA-256"):
            Predictor(folder)

    @pytest.mark.parametrize("content", [b"", b"not an ONNX file"])
    def test_a_file_that_is_no_network_is_named(self, content: bytes, package_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(package_folder, tmp_path / "p"))
        (folder / ONNX_FILE).write_bytes(content)
        write_card(folder, ModelPackage.read(package_folder).card)
        with pytest.raises(ModelPackageError, match=re.escape(str(folder / ONNX_FILE))):
            Predictor(folder, device="cpu")

    @pytest.mark.parametrize(
        ("changes", "expected", "found"),
        [
            ({"input": replace(GREY_PRESET.input, height=9)}, "[batch, 9, 8, 1]", "[batch, 8, 8, 1]"),
            ({"labels": ("a", "b")}, "[batch, 2]", "[batch, 10]"),
        ],
    )
    def test_a_network_that_does_not_match_its_card_is_rejected(
        self, package_folder: Path, tmp_path: Path, changes: dict[str, Any], expected: str, found: str
    ) -> None:
        folder = repackage(package_folder, tmp_path / "p", **changes)
        with pytest.raises(ModelPackageError, match=f"{ONNX_FILE}.*{re.escape(expected)}.*{re.escape(found)}"):
            Predictor(folder)

    @pytest.mark.parametrize(
        "changes",
        [
            {"labels": tuple("1023456789")},
            {"input": replace(GREY_PRESET.input, mean=(0.25,))},
            {"name": "other"},
        ],
        ids=["labels", "mean", "name"],
    )
    def test_a_card_that_contradicts_the_metadata_of_the_network_is_rejected(
        self, package_folder: Path, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        folder = repackage(package_folder, tmp_path / "p", keep_metadata=True, **changes)
        (folder / DIGEST_FILE).unlink()  # as earlier versions wrote it
        with pytest.raises(ModelPackageError, match=f"{ONNX_FILE} does not match its card"):
            Predictor(folder)
        assert Predictor(repackage(package_folder, tmp_path / "q", **changes)).info().labels

    def test_a_file_object_in_text_mode_and_a_closed_one_are_named(self, predictor: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        with path.open(encoding="utf-8") as text, path.open("rb") as closed:
            closed.close()
            for file, reason in ((text, "can't decode"), (closed, "closed file")):
                errors = list(predictor.predict_iter([file, path], on_error="yield"))
                assert re.fullmatch(
                    f"image 1 of 2: expected an open file object in binary mode: .*{reason}.*", str(errors[0])
                )
                assert errors[1] == predictor.predict(path)

    def test_an_empty_path_is_not_the_current_folder(self, predictor: Predictor) -> None:
        for call in (predictor.predict, predictor.predict_iter):
            with pytest.raises(ImageError, match=r"expected the path of .*, got ''"):
                call("")

    @pytest.mark.parametrize(
        "error",
        [
            zipfile.BadZipFile("Bad CRC-32"),
            EOFError("ended before the end-of-stream marker"),
            zlib.error("Error -3"),
            http.client.IncompleteRead(b"abc", 10),
            ConnectionResetError("peer"),
            OSError("stale"),
            ImageLibraryError("of a class derived from EOFError"),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("method", ["read", "seek"])
    def test_a_file_object_that_cannot_be_read_is_the_error_of_its_image_alone(
        self, predictor: Predictor, error: Exception, method: str
    ) -> None:
        good = encode(PIL.Image.fromarray(IMAGES[0, ..., 0]), "PNG")
        outcomes = list(predictor.predict_iter([failing_file(method, error), good], on_error="yield"))
        assert re.match(f"image 1 of 2: .*{type(error).__name__}", str(outcomes[0]))
        assert outcomes[1] == predictor.predict(good)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            TimeoutError("timed out"),
            *(OSError(number, os.strerror(number)) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
            OSError(errno.ENOTCONN, "a file system whose program has ended"),
            TimeLimitError(),
            MixedTimeLimitError(),
            PredictorClosedError("closed"),
        ],
        ids=lambda error: type(error).__name__,
    )
    @pytest.mark.parametrize("method", ["read", "seek"])
    def test_what_is_not_the_fault_of_a_file_object_ends_the_iteration(
        self, predictor: Predictor, error: Exception, method: str
    ) -> None:
        with pytest.raises(type(error)):
            list(predictor.predict_iter([failing_file(method, error)], on_error="yield"))

    def test_a_path_in_bytes_is_named_as_others_are(self, predictor: Predictor, tmp_path: Path) -> None:
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "b.png")
        (tmp_path / "a.png").write_bytes(b"no image")
        with os.scandir(os.fsencode(tmp_path)) as entries:
            outcomes = list(predictor.predict_iter(sorted(entries, key=lambda entry: entry.name), on_error="yield"))
        assert str(outcomes[0]).startswith(f"image 1 of 2 ({tmp_path / 'a.png'}): ")
        assert outcomes[1] == predictor.predict(tmp_path / "b.png")

    def test_an_object_that_is_no_image_is_named_with_its_module(self, predictor: Predictor) -> None:
        with pytest.raises(ImageError, match=r"got tests\.predictor\.test_errors\.TimeLimitError$"):
            predictor.predict(TimeLimitError())
