"""The Predictor: right answers, for every form of input, from many threads; clear refusals."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pdeinfer.errors import (
    DeviceError,
    ImageError,
    ModelNotFoundError,
    ModelPackageError,
    PredictorClosedError,
)
from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.package import ONNX_FILE, ModelPackage, write_card
from pdeinfer.prediction import ClassScore, Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import Preset
from tests.conftest import GREY_PRESET, RGB_PRESET, write_tiny_package

Reference = Callable[[Preset, np.ndarray], np.ndarray]

IMAGES = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def predictor(package_folder: Path) -> Iterator[Predictor]:
    with Predictor(package_folder, device="cpu", threads=1, batch_size=4) as predictor:
        yield predictor


def repackage(folder: Path, target: Path, **changes: object) -> Path:
    """Copy a package, its card changed and written anew: intact, but another model than its card says."""
    shutil.copytree(folder, target)
    (target / CARD_FILE).unlink()
    card = ModelPackage.read(folder).card
    write_card(target, ModelCard(replace(card.preset, **changes), card.parameters, card.macs, card.opset))
    return target


class TestAnswers:
    """What is predicted."""

    @pytest.mark.parametrize("preset", [GREY_PRESET, RGB_PRESET], ids=["grey", "rgb"])
    def test_probabilities_are_those_of_the_network(
        self, preset: Preset, tmp_path: Path, tiny_probabilities: Reference
    ) -> None:
        spec = preset.input
        shape = (33, spec.height, spec.width, spec.channels)
        images = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
        with Predictor(write_tiny_package(tmp_path / "p", preset), batch_size=8) as predictor:
            result = predictor.predict_proba(images)
        assert (result.shape, result.dtype) == ((33, 10), np.float32)
        assert np.allclose(result, tiny_probabilities(preset, images), rtol=0, atol=1e-6)

    def test_the_top_classes_are_the_most_probable_best_first(
        self, predictor: Predictor, tiny_probabilities: Reference
    ) -> None:
        expected = tiny_probabilities(GREY_PRESET, IMAGES[:1])[0]
        prediction = predictor.predict(IMAGES[0], top_k=3)
        assert [entry.index for entry in prediction.top] == np.argsort(-expected)[:3].tolist()
        assert [entry.label for entry in prediction.top] == [str(entry.index) for entry in prediction.top]
        assert [entry.score for entry in prediction.top] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-6)
        assert (prediction.label, prediction.index, prediction.score) == (
            prediction.top[0].label,
            prediction.top[0].index,
            prediction.top[0].score,
        )

    def test_of_equal_scores_the_first_label_comes_first(self, predictor: Predictor) -> None:
        prediction = predictor.predict(np.zeros((8, 8), np.uint8), top_k=10)  # all logits are 0
        assert [entry.index for entry in prediction.top] == list(range(10))

    def test_a_prediction_holds_plain_values_and_becomes_json_values(self, predictor: Predictor) -> None:
        prediction = predictor.predict(IMAGES[0], top_k=2)
        assert (type(prediction.index), type(prediction.score)) == (int, float)
        assert prediction.to_dict() == {
            "label": prediction.label,
            "index": prediction.index,
            "score": prediction.score,
            "top": [{"label": top.label, "index": top.index, "score": top.score} for top in prediction.top],
        }

    def test_a_prediction_is_a_value(self) -> None:
        top = (ClassScore("a", 0, 0.5),)
        assert Prediction("a", 0, 0.5, top) == Prediction("a", 0, 0.5, top)
        assert len({Prediction("a", 0, 0.5, top), Prediction("a", 0, 0.5, top)}) == 1

    def test_one_image_gives_one_prediction_and_a_list_gives_a_list(self, predictor: Predictor) -> None:
        one = predictor.predict(IMAGES[0])
        assert isinstance(one, Prediction)
        assert len(one.top) == 5
        assert predictor.predict([IMAGES[0]]) == [one]
        assert predictor.predict((IMAGES[0],)) == [one]
        assert predictor.predict([]) == []

    def test_a_list_longer_than_a_batch_is_answered_in_order(self, predictor: Predictor) -> None:
        assert predictor.predict(list(IMAGES)) == [predictor.predict(image) for image in IMAGES]

    def test_every_kind_of_input_gives_the_same_prediction(self, predictor: Predictor, tmp_path: Path) -> None:
        image = PIL.Image.fromarray(IMAGES[0, ..., 0])
        path = tmp_path / "image.png"
        image.save(path)
        expected = predictor.predict(IMAGES[0])
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), image, IMAGES[0, ..., 0]):
            assert predictor.predict(source) == expected

    def test_images_of_another_size_and_mode_are_converted(self, rgb_package_folder: Path) -> None:
        with Predictor(rgb_package_folder) as predictor:
            small = predictor.predict(np.full((8, 8), 100, np.uint8))
            large = predictor.predict(PIL.Image.new("RGBA", (300, 200), (100, 100, 100, 255)))
        assert small == large
        assert small.label in RGB_PRESET.labels

    @pytest.mark.parametrize(("top_k", "count"), [(1, 1), (10, 10), (11, 10), (10**9, 10), (np.int64(3), 3)])
    def test_top_k_is_clipped_to_the_classes(self, predictor: Predictor, top_k: int, count: int) -> None:
        assert len(predictor.predict(IMAGES[0], top_k=top_k).top) == count

    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 10])
    def test_batches_do_not_show(self, predictor: Predictor, count: int, tiny_probabilities: Reference) -> None:
        result = predictor.predict_proba(IMAGES[:count])
        assert result.shape == (count, 10)
        assert np.allclose(result, tiny_probabilities(GREY_PRESET, IMAGES[:count]), rtol=0, atol=1e-6)


class TestIteration:
    """predict_iter."""

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda images: (image for image in images), np.asarray])
    def test_any_iterable_is_answered_in_order(self, predictor: Predictor, kind: Callable[[Any], Any]) -> None:
        assert list(predictor.predict_iter(kind(IMAGES), top_k=2)) == predictor.predict(list(IMAGES), top_k=2)

    def test_nothing_gives_nothing(self, predictor: Predictor) -> None:
        assert list(predictor.predict_iter([])) == []

    def test_no_more_than_a_batch_is_read_ahead(self, predictor: Predictor) -> None:
        read = 0

        def endless() -> Iterator[np.ndarray]:
            nonlocal read
            while True:
                read += 1
                yield IMAGES[0]

        predictions = predictor.predict_iter(endless())
        assert read == 0
        for number in range(1, 10):
            next(predictions)
            assert read <= number + predictor.info().batch_size - 1

    def test_a_folder_is_read_in_the_order_of_names(self, predictor: Predictor, tmp_path: Path) -> None:
        for number in (3, 1, 2):
            PIL.Image.fromarray(IMAGES[number, ..., 0]).save(tmp_path / f"{number}.png")
        (tmp_path / "notes.txt").write_text("no image")
        expected = predictor.predict(list(IMAGES[1:4]))
        assert list(predictor.predict_iter(tmp_path)) == expected
        assert list(predictor.predict_iter(str(tmp_path))) == expected

    def test_an_empty_or_missing_folder_is_refused_at_once(self, predictor: Predictor, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="found none"):
            predictor.predict_iter(tmp_path)
        with pytest.raises(ImageError, match="No such file or directory"):
            predictor.predict_iter(tmp_path / "none")

    @pytest.mark.parametrize(
        "image",
        [
            b"GIF89a",
            bytearray(b"x"),
            memoryview(b"x"),
            io.BytesIO(b"x"),
            np.zeros((8, 8, 3), np.uint8),
            PIL.Image.new("L", (8, 8)),
        ],
        ids=lambda image: type(image).__name__,
    )
    def test_one_image_is_refused(self, predictor: Predictor, image: object) -> None:
        with pytest.raises(TypeError, match=r"this is one image \(.*\): predict takes it"):
            predictor.predict_iter(image)

    def test_an_array_of_images_is_an_iterable_of_them(self, predictor: Predictor) -> None:
        assert len(list(predictor.predict_iter(np.zeros((3, 8, 8, 1), np.uint8)))) == 3

    @pytest.mark.parametrize("bad", [0, 3, 4, 5])
    def test_the_images_before_a_bad_one_are_answered(self, predictor: Predictor, bad: int) -> None:
        images: list[Any] = list(IMAGES)
        images[bad] = b"no image"
        predictions = predictor.predict_iter(images)
        assert [next(predictions) for _ in range(bad)] == predictor.predict(images[:bad])
        with pytest.raises(ImageError, match=f"^image {bad + 1}: expected"):
            next(predictions)


class TestRefusals:
    """Errors that name the input and what was expected."""

    def test_an_image_in_a_list_is_named_by_its_place(self, predictor: Predictor) -> None:
        with pytest.raises(ImageError, match=r"^image 3 of 10: expected pixels of dtype uint8, .* got float32$"):
            predictor.predict([*IMAGES[:2], IMAGES[2].astype(np.float32), *IMAGES[3:]])

    def test_a_path_in_a_list_is_named_too(self, predictor: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "cut.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(ImageError, match=rf"^image 2 of 2 \({re.escape(str(path))}\): expected a BMP"):
            predictor.predict([IMAGES[0], path])

    def test_a_batch_is_not_one_image(self, predictor: Predictor) -> None:
        with pytest.raises(ImageError, match=r"array: expected the shape .* got \(10, 8, 8, 1\)"):
            predictor.predict(IMAGES)

    def test_a_set_is_not_a_list(self, predictor: Predictor) -> None:
        with pytest.raises(ImageError, match="got set"):
            predictor.predict({"a.png"})

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
        with pytest.raises(ImageError, match=rf"^expected a uint8 array of shape \(N, 8, 8, 1\), got {found}$"):
            predictor.predict_proba(images)

    @pytest.mark.parametrize("top_k", [0, -1])
    def test_top_k_below_one_is_a_value_error(self, predictor: Predictor, top_k: int) -> None:
        for call in (predictor.predict, predictor.predict_iter):
            with pytest.raises(ValueError, match=f"top_k must be at least 1, not {top_k}"):
                call([IMAGES[0]], top_k=top_k)

    @pytest.mark.parametrize("top_k", [1.0, "3", None, True])
    def test_top_k_of_another_type_is_a_type_error(self, predictor: Predictor, top_k: object) -> None:
        for call in (predictor.predict, predictor.predict_iter):
            with pytest.raises(TypeError, match=f"top_k must be an integer, not {top_k!r}"):
                call([IMAGES[0]], top_k=top_k)

    @pytest.mark.parametrize("argument", ["threads", "batch_size"])
    def test_threads_and_batch_size_are_positive_integers(self, package_folder: Path, argument: str) -> None:
        with pytest.raises(ValueError, match=f"{argument} must be at least 1, not 0"):
            Predictor(package_folder, **{argument: 0})
        with pytest.raises(TypeError, match=f"{argument} must be an integer, not 2.5"):
            Predictor(package_folder, **{argument: 2.5})

    def test_an_unknown_model_and_an_unknown_device_are_refused(self, package_folder: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="'nope' is neither"):
            Predictor("nope")
        with pytest.raises(DeviceError, match="not 'tpu'"):
            Predictor(package_folder, device="tpu")

    def test_a_damaged_network_is_never_loaded(self, package_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(package_folder, tmp_path / "p"))
        content = bytearray((folder / ONNX_FILE).read_bytes())
        content[-1] ^= 1
        (folder / ONNX_FILE).write_bytes(content)
        with pytest.raises(ModelPackageError, match="is damaged"):
            Predictor(folder)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"input": replace(GREY_PRESET.input, height=9)},
                r"input image: tensor\(uint8\) \[batch, 9, 8, 1\] expected, image: .*\[batch, 8, 8, 1\] found",
            ),
            (
                {"labels": ("a", "b")},
                r"output probabilities: tensor\(float\) \[batch, 2\] expected, probabilities: .*\[batch, 10\] found",
            ),
        ],
    )
    def test_a_network_that_does_not_fit_its_card_is_refused(
        self, package_folder: Path, tmp_path: Path, changes: dict[str, Any], problem: str
    ) -> None:
        folder = repackage(package_folder, tmp_path / "p", **changes)
        with pytest.raises(ModelPackageError, match=f"{ONNX_FILE} does not fit its card: {problem}"):
            Predictor(folder)


class TestLife:
    """info, close, threads."""

    def test_info_says_what_runs(self, package_folder: Path) -> None:
        with Predictor(str(package_folder), device="cpu", threads=2, batch_size=7) as predictor:
            info = predictor.info()
        assert (info.model, info.path, info.labels) == ("tiny-grey", package_folder, GREY_PRESET.labels)
        assert (info.input, info.parameters) == (GREY_PRESET.input, 640)
        assert (info.device, info.provider, info.threads, info.batch_size) == ("cpu", "CPUExecutionProvider", 2, 7)
        assert set(info.versions) == {"pdeinfer", "package", "onnxruntime", "numpy"}

    def test_a_package_that_is_read_already_is_taken(self, package_folder: Path) -> None:
        with Predictor(ModelPackage.read(package_folder)) as predictor:
            assert predictor.info().path == package_folder

    def test_a_closed_predictor_says_so(self, package_folder: Path) -> None:
        with Predictor(package_folder) as predictor:
            pass
        predictor.close()
        for call in (
            lambda: predictor.predict(IMAGES[0]),
            lambda: predictor.predict([]),
            lambda: predictor.predict_iter([]),
            lambda: predictor.predict_proba(IMAGES),
            lambda: predictor.predict_proba(IMAGES[:0]),
            lambda: predictor.predict(b"no image"),
            predictor.info,
            predictor.__enter__,
        ):
            with pytest.raises(PredictorClosedError, match="this Predictor is closed"):
                call()

    def test_what_is_under_way_when_it_closes_ends_normally(self, package_folder: Path) -> None:
        predictor = Predictor(package_folder, batch_size=2)
        expected = predictor.predict(list(IMAGES))
        iterator = predictor.predict_iter(IMAGES)

        class ClosingFile(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                predictor.close()
                return super().read(size)

        content = io.BytesIO()
        PIL.Image.fromarray(IMAGES[3, ..., 0]).save(content, "PNG")
        assert predictor.predict([*IMAGES[:3], ClosingFile(content.getvalue()), *IMAGES[4:]]) == expected
        assert list(iterator) == expected
        with pytest.raises(PredictorClosedError):
            predictor.info()

    def test_many_threads_share_one_predictor(self, package_folder: Path, tiny_probabilities: Reference) -> None:
        batches = np.random.default_rng(3).integers(0, 256, (64, 5, 8, 8, 1), dtype=np.uint8)
        expected = [tiny_probabilities(GREY_PRESET, batch) for batch in batches]
        with Predictor(package_folder, threads=1, batch_size=2) as predictor, ThreadPoolExecutor(8) as pool:
            arrays = list(pool.map(predictor.predict_proba, batches))
            lists = list(pool.map(lambda batch: predictor.predict(list(batch), top_k=1), batches))
        assert all(np.allclose(*pair, rtol=0, atol=1e-6) for pair in zip(arrays, expected, strict=True))
        found = [[prediction.index for prediction in predictions] for predictions in lists]
        assert found == [probabilities.argmax(axis=1).tolist() for probabilities in expected]

    def test_closing_while_others_predict_ends_in_answers_or_closed_errors(self, package_folder: Path) -> None:
        predictor = Predictor(package_folder, threads=1)

        def work(_: int) -> bool:
            try:
                return predictor.predict_proba(IMAGES).shape == (10, 10)
            except PredictorClosedError:
                return True

        with ThreadPoolExecutor(8) as pool:
            results = [pool.submit(work, number) for number in range(200)]
            predictor.close()
            assert all(result.result() for result in results)
