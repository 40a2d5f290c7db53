"""Predictions for every kind of input, of one image, several and any number."""

import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import PIL.Image
import pytest

from pdeinfer.errors import ImageError
from pdeinfer.prediction import ClassScore, Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import Preset
from tests.conftest import GREY_PRESET, RGB_PRESET, write_tiny_package
from tests.predictor.helpers import IMAGES, Reference


class TestAnswers:
    """What a prediction is."""

    @pytest.mark.parametrize("preset", [GREY_PRESET, RGB_PRESET], ids=["grey", "rgb"])
    def test_probabilities_equal_the_reference(
        self, preset: Preset, tmp_path: Path, tiny_probabilities: Reference
    ) -> None:
        spec = preset.input
        shape = (33, spec.height, spec.width, spec.channels)
        images = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
        with Predictor(write_tiny_package(tmp_path / "p", preset), batch_size=8) as predictor:
            result = predictor.predict_proba(images)
        assert (result.shape, result.dtype) == ((33, 10), np.float32)
        assert np.allclose(result, tiny_probabilities(preset, images), rtol=0, atol=1e-6)

    def test_top_classes_are_sorted_by_probability(self, predictor: Predictor, tiny_probabilities: Reference) -> None:
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

    def test_equal_scores_keep_the_order_of_the_labels(self, predictor: Predictor) -> None:
        prediction = predictor.predict(np.zeros((8, 8), np.uint8), top_k=10)  # all logits are 0
        assert [entry.index for entry in prediction.top] == list(range(10))

    def test_a_prediction_converts_to_json_values(self, predictor: Predictor) -> None:
        prediction = predictor.predict(IMAGES[0], top_k=2)
        assert (type(prediction.index), type(prediction.score)) == (int, float)
        assert prediction.to_dict() == {
            "label": prediction.label,
            "index": prediction.index,
            "score": prediction.score,
            "top": [{"label": top.label, "index": top.index, "score": top.score} for top in prediction.top],
        }

    def test_predictions_compare_and_hash_by_value(self) -> None:
        top = (ClassScore("a", 0, 0.5),)
        assert Prediction("a", 0, 0.5, top) == Prediction("a", 0, 0.5, top)
        assert len({Prediction("a", 0, 0.5, top), Prediction("a", 0, 0.5, top)}) == 1

    def test_one_image_gives_one_prediction(self, predictor: Predictor) -> None:
        prediction = predictor.predict(IMAGES[0])
        assert isinstance(prediction, Prediction)
        assert len(prediction.top) == 5

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda images: (image for image in images), np.asarray])
    @pytest.mark.parametrize("count", [0, 1, 10])  # 10 is more than a batch
    def test_several_images_give_a_list_in_order(
        self, predictor: Predictor, kind: Callable[[Any], Any], count: int
    ) -> None:
        expected = [predictor.predict(image) for image in IMAGES[:count]]
        assert predictor.predict(kind(IMAGES[:count])) == expected

    def test_paths_in_a_set_are_several_images(self, predictor: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "image.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        assert predictor.predict({path}) == [predictor.predict(path)]

    @pytest.mark.parametrize("dtype", [str, object])
    def test_paths_in_an_array_are_several_images(self, predictor: Predictor, tmp_path: Path, dtype: type) -> None:
        path = tmp_path / "image.png"
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        paths = np.array([str(path), str(path)], dtype)
        expected = [predictor.predict(path)] * 2
        assert predictor.predict(paths) == list(predictor.predict_iter(paths)) == expected
        assert all(type(prediction.source) is str for prediction in predictor.predict(paths))

    def test_every_kind_of_input_gives_the_same_prediction(self, predictor: Predictor, tmp_path: Path) -> None:
        image = PIL.Image.fromarray(IMAGES[0, ..., 0])
        path = tmp_path / "image.png"
        image.save(path)
        expected = predictor.predict(IMAGES[0])
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), image, IMAGES[0, ..., 0]):
            assert predictor.predict(source) == expected

    @pytest.mark.parametrize("buffering", [0, -1])
    def test_a_file_object_that_cannot_seek_is_an_image(self, predictor: Predictor, buffering: int) -> None:
        content = io.BytesIO()
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(content, "PNG")
        read, write = os.pipe()
        os.write(write, content.getvalue())
        os.close(write)
        with os.fdopen(read, "rb", buffering) as pipe:
            assert predictor.predict(pipe) == predictor.predict(IMAGES[0])

    @pytest.mark.skipif("avif" not in PIL.features.get_supported_modules(), reason="this Pillow does not read AVIF")
    def test_a_pillow_image_may_have_any_format_that_pillow_reads(self, predictor: Predictor) -> None:
        file = io.BytesIO()
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(file, "AVIF", quality=100)
        opened = PIL.Image.open(file)
        assert opened.format == "AVIF"
        assert predictor.predict(opened) == predictor.predict(np.asarray(PIL.Image.open(file)))
        with pytest.raises(ImageError, match=r"AVIF .* process with limits.*convert it"):
            predictor.predict(file)

    def test_other_sizes_and_modes_are_converted(self, rgb_package_folder: Path) -> None:
        with Predictor(rgb_package_folder) as predictor:
            small = predictor.predict(np.full((8, 8), 100, np.uint8))
            large = predictor.predict(PIL.Image.new("RGBA", (300, 200), (100, 100, 100, 255)))
        assert small == large
        assert small.label in RGB_PRESET.labels

    @pytest.mark.parametrize(("top_k", "count"), [(1, 1), (10, 10), (11, 10), (10**9, 10), (np.int64(3), 3)])
    def test_top_k_is_clipped_to_the_classes(self, predictor: Predictor, top_k: int, count: int) -> None:
        assert len(predictor.predict(IMAGES[0], top_k=top_k).top) == count

    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 10])
    def test_any_number_of_images_gives_a_row_each(
        self, predictor: Predictor, count: int, tiny_probabilities: Reference
    ) -> None:
        result = predictor.predict_proba(IMAGES[:count])
        assert result.shape == (count, 10)
        assert np.allclose(result, tiny_probabilities(GREY_PRESET, IMAGES[:count]), rtol=0, atol=1e-6)


class TestIteration:
    """predict_iter."""

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda images: (image for image in images), np.asarray])
    def test_any_iterable_gives_predictions_in_order(self, predictor: Predictor, kind: Callable[[Any], Any]) -> None:
        assert list(predictor.predict_iter(kind(IMAGES), top_k=2)) == predictor.predict(list(IMAGES), top_k=2)

    def test_no_images_give_no_predictions(self, predictor: Predictor) -> None:
        assert list(predictor.predict_iter([])) == []

    def test_at_most_one_batch_is_read_ahead(self, predictor: Predictor) -> None:
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

    def test_a_folder_is_read_sorted_by_name(self, predictor: Predictor, tmp_path: Path) -> None:
        for number in (3, 1, 2):
            PIL.Image.fromarray(IMAGES[number, ..., 0]).save(tmp_path / f"{number}.png")
        (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
        expected = predictor.predict(list(IMAGES[1:4]))
        assert list(predictor.predict_iter(tmp_path)) == expected
        assert list(predictor.predict_iter(str(tmp_path))) == expected

    def test_an_empty_or_missing_folder_raises_before_iteration(self, predictor: Predictor, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(ImageError, match=re.escape(str(folder))):
                predictor.predict_iter(folder)

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
    def test_one_image_is_a_type_error(self, predictor: Predictor, image: object) -> None:
        with pytest.raises(TypeError, match=type(image).__name__):
            predictor.predict_iter(image)

    @pytest.mark.parametrize("bad", [0, 3, 4, 5])
    def test_images_before_a_bad_one_are_predicted(self, predictor: Predictor, bad: int) -> None:
        images: list[Any] = list(IMAGES)
        images[bad] = b"no image"
        predictions = predictor.predict_iter(images)
        assert [next(predictions) for _ in range(bad)] == predictor.predict(images[:bad])
        with pytest.raises(ImageError, match=f"^image {bad + 1} of {len(images)}: expected"):
            next(predictions)

    @pytest.mark.parametrize("bad", [[0], [3, 4], [5, 9], list(range(10))])
    def test_errors_take_the_place_of_predictions_if_asked_for(self, predictor: Predictor, bad: list[int]) -> None:
        images: list[Any] = [b"no image" if number in bad else image for number, image in enumerate(IMAGES)]
        outcomes = list(predictor.predict_iter(images, on_error="yield"))
        assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)] == bad
        assert [str(outcomes[number]).partition(":")[0] for number in bad] == [
            f"image {number + 1} of 10" for number in bad
        ]
        expected = predictor.predict([image for number, image in enumerate(IMAGES) if number not in bad])
        assert [outcome for outcome in outcomes if not isinstance(outcome, ImageError)] == expected

    def test_an_unknown_on_error_is_a_value_error(self, predictor: Predictor) -> None:
        with pytest.raises(ValueError, match="'skip'"):
            predictor.predict_iter([], on_error="skip")  # type: ignore[call-overload]

    def test_predictions_name_the_files_that_they_are_of(self, predictor: Predictor, tmp_path: Path) -> None:
        paths = [tmp_path / f"{number}.png" for number in range(3)]
        for path in paths:
            PIL.Image.fromarray(IMAGES[0, ..., 0]).save(path)
        expected = [str(path) for path in paths]
        assert [prediction.source for prediction in predictor.predict_iter(tmp_path)] == expected
        assert [prediction.source for prediction in predictor.predict(paths)] == expected
        assert predictor.predict(str(paths[0])).source == expected[0]
        assert predictor.predict(IMAGES[0]).source is None
        assert predictor.predict(paths[0].read_bytes()).source is None

    def test_an_iterable_without_a_length_may_have_a_len_that_raises(self, predictor: Predictor) -> None:
        class Shown:
            """Like tqdm around a generator."""

            def __len__(self) -> int:
                raise TypeError("no length")

            def __iter__(self) -> Iterator[np.ndarray]:
                return iter(IMAGES)

        assert list(predictor.predict_iter(Shown())) == predictor.predict(IMAGES)

    def test_a_sequence_without_iter_is_several_images(self, predictor: Predictor) -> None:
        class Dataset:
            """Like PyTorch's map-style data sets."""

            def __len__(self) -> int:
                return len(IMAGES)

            def __getitem__(self, index: int) -> np.ndarray:
                return IMAGES[index]

        assert predictor.predict(Dataset()) == predictor.predict(IMAGES)

    def test_errors_that_are_kept_hold_no_image(self, predictor: Predictor, tmp_path: Path) -> None:
        path = tmp_path / "cut.png"
        PIL.Image.fromarray(np.zeros((500, 500), np.uint8)).save(path, compress_level=0)
        path.write_bytes(path.read_bytes()[:100_000])
        (error,) = predictor.predict_iter([path], on_error="yield")
        assert isinstance(error, ImageError)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
