"""The Predictor: correct predictions for every kind of input, from threads and processes; clear errors."""

import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.features
import PIL.Image
import pytest

from pdeinfer.errors import (
    DeviceError,
    ImageError,
    ModelNotFoundError,
    ModelPackageError,
    PredictorClosedError,
)
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.package import DIGEST_FILE, ONNX_FILE, ModelPackage, write_card
from pdeinfer.prediction import ClassScore, Prediction
from pdeinfer.predictor import Predictor
from pdeinfer.spec.presets import Preset
from tests.conftest import GREY_PRESET, RGB_PRESET, write_tiny_package
from tests.runtime.cuda_on_cpu import CudaOnCpu

Reference = Callable[[Preset, np.ndarray], np.ndarray]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

IMAGES = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def predictor(package_folder: Path) -> Iterator[Predictor]:
    with Predictor(package_folder, device="cpu", threads=1, batch_size=4) as predictor:
        yield predictor


def repackage(folder: Path, target: Path, *, keep_metadata: bool = False, **changes: object) -> Path:
    """Copy a package and change its card, whose checksums stay right: the card no longer describes the model."""
    shutil.copytree(folder, target)
    (target / CARD_FILE).unlink()
    if not keep_metadata:
        model = onnx.load(target / ONNX_FILE)
        del model.metadata_props[:]
        onnx.save(model, target / ONNX_FILE)
    card = ModelPackage.read(folder).card
    write_card(target, ModelCard(replace(card.preset, **changes), card.parameters, card.macs, card.opset))
    return target


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


class TestColours:
    """The order of the colours in arrays."""

    @pytest.fixture
    def predictors(self, rgb_package_folder: Path) -> Iterator[tuple[Predictor, Predictor]]:
        with Predictor(rgb_package_folder) as rgb, Predictor(rgb_package_folder, channels="bgr") as bgr:
            yield rgb, bgr

    @pytest.mark.parametrize("shape", [(32, 32, 3), (50, 40, 3), (32, 32, 4), (50, 40, 1), (50, 40)])
    def test_bgr_arrays_are_those_of_opencv(
        self, predictors: tuple[Predictor, Predictor], shape: tuple[int, ...]
    ) -> None:
        rgb, bgr = predictors
        pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
        swapped = pixels.copy()
        if shape[2:] in ((3,), (4,)):
            swapped[..., 0], swapped[..., 2] = pixels[..., 2], pixels[..., 0]
        assert bgr.predict(swapped) == rgb.predict(pixels)
        assert bgr.predict([swapped, swapped]) == rgb.predict([pixels, pixels])

    def test_bgr_arrays_in_the_network_s_shape(self, predictors: tuple[Predictor, Predictor]) -> None:
        rgb, bgr = predictors
        pixels = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        assert not np.array_equal(bgr.predict_proba(pixels), rgb.predict_proba(pixels))
        assert np.array_equal(bgr.predict_proba(pixels[..., ::-1]), rgb.predict_proba(pixels))

    def test_files_and_pillow_images_have_their_own_order(
        self, predictors: tuple[Predictor, Predictor], tmp_path: Path
    ) -> None:
        rgb, bgr = predictors
        image = PIL.Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
        image.save(tmp_path / "image.png")
        assert bgr.predict(image) == rgb.predict(image)
        assert bgr.predict(tmp_path / "image.png") == rgb.predict(image)

    def test_grey_networks_weigh_the_colours_in_their_order(self, package_folder: Path) -> None:
        red = np.zeros((8, 8, 3), np.uint8)
        red[..., 2] = np.arange(64).reshape(8, 8) * 4
        with Predictor(package_folder) as rgb, Predictor(package_folder, channels="bgr") as bgr:
            assert bgr.predict(red) == rgb.predict(red[..., ::-1])
            assert bgr.predict(red) != rgb.predict(red)

    def test_an_unknown_order_is_a_value_error(self, package_folder: Path) -> None:
        with pytest.raises(ValueError, match="'grb'"):
            Predictor(package_folder, channels="grb")  # type: ignore[arg-type]


class TestFeatures:
    """embed."""

    @pytest.fixture
    def embedding(self, tmp_path: Path) -> Iterator[Predictor]:
        folder = write_tiny_package(tmp_path / "package", GREY_PRESET, has_features=True)
        with Predictor(folder, device="cpu", threads=1, batch_size=4) as predictor:
            yield predictor

    @pytest.mark.parametrize("kind", [list, iter, np.asarray])
    @pytest.mark.parametrize("count", [0, 1, 10])
    def test_features_are_a_row_for_each_image(
        self, embedding: Predictor, kind: Callable[[Any], Any], count: int
    ) -> None:
        found = embedding.embed(kind(IMAGES[:count]))
        assert found.dtype == np.float32
        assert np.array_equal(found, IMAGES[:count].reshape(count, 64))  # the tiny network's features are its pixels

    def test_one_image_is_one_row(self, embedding: Predictor, tmp_path: Path) -> None:
        PIL.Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "image.png")
        for image in (tmp_path / "image.png", IMAGES[0]):
            assert np.array_equal(embedding.embed(image), IMAGES[:1].reshape(1, 64))

    def test_a_network_with_features_predicts_as_one_without(self, embedding: Predictor, predictor: Predictor) -> None:
        assert embedding.predict(IMAGES) == predictor.predict(IMAGES)

    def test_an_image_that_cannot_be_read_is_named(self, embedding: Predictor) -> None:
        with pytest.raises(ImageError, match=r"^image 6 of 7: "):
            embedding.embed([*IMAGES[:5], b"no image", IMAGES[0]])

    def test_a_package_without_features_says_what_to_do(self, predictor: Predictor) -> None:
        with pytest.raises(ModelPackageError, match="export it again"):
            predictor.embed(IMAGES)


class TestThreshold:
    """Answers that are not probable enough."""

    def test_an_answer_below_the_threshold_has_no_label(self, predictor: Predictor, package_folder: Path) -> None:
        expected = predictor.predict(list(IMAGES))
        threshold = float(np.median([prediction.score for prediction in expected]))
        with Predictor(package_folder, device="cpu", threads=1, batch_size=4, threshold=threshold) as strict:
            found = strict.predict(list(IMAGES))
            probabilities = strict.predict_proba(IMAGES)
        known = [prediction.label is not None for prediction in found]
        assert 0 < sum(known) < len(IMAGES)
        assert known == [prediction.score >= threshold for prediction in expected]
        for prediction, full in zip(found, expected, strict=True):
            assert (prediction.score, prediction.top) == (full.score, full.top)
            assert (prediction.label, prediction.index) in ((full.label, full.index), (None, None))
        assert found[known.index(False)].to_dict()["label"] is None
        assert np.array_equal(probabilities, predictor.predict_proba(IMAGES))

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
    def test_a_threshold_outside_0_to_1_is_a_value_error(self, package_folder: Path, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold must be"):
            Predictor(package_folder, threshold=threshold)

    @pytest.mark.parametrize("threshold", ["0.5", None, True, [0.5]])
    def test_a_threshold_of_another_type_is_a_type_error(self, package_folder: Path, threshold: object) -> None:
        with pytest.raises(TypeError, match="threshold must be"):
            Predictor(package_folder, threshold=threshold)

    def test_a_threshold_may_be_a_number_of_numpy(self, package_folder: Path) -> None:
        with Predictor(package_folder, threshold=np.float32(1)) as strict:
            assert strict.predict(IMAGES[0]).label is None


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

    def test_scores_in_a_list_are_ranked(self, predictor: Predictor) -> None:
        scores = predictor.predict_proba(IMAGES[:1])[0]
        assert predictor.rank(scores.tolist()) == predictor.rank(scores)

    @pytest.mark.parametrize("model", [None, 3, b"digits-pde"])
    def test_a_model_of_another_type_is_a_type_error(self, model: object) -> None:
        with pytest.raises(TypeError, match="model"):
            Predictor(model)

    @pytest.mark.parametrize("argument", ["threads", "batch_size", "gpu_mem_limit"])
    def test_threads_batch_size_and_memory_are_positive_integers(self, package_folder: Path, argument: str) -> None:
        with pytest.raises(ValueError, match=argument):
            Predictor(package_folder, **{argument: 0})
        with pytest.raises(TypeError, match=argument):
            Predictor(package_folder, **{argument: 2.5})

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


class TestLife:
    """info, packages and precisions, close, threads."""

    def test_info_describes_what_runs(self, package_folder: Path) -> None:
        with Predictor(str(package_folder), device="cpu", threads=2, batch_size=7) as predictor:
            info = predictor.info()
        assert (info.model, info.path, info.labels) == ("tiny-grey", package_folder, GREY_PRESET.labels)
        assert (info.input, info.parameters) == (GREY_PRESET.input, 640)
        assert (info.device, info.provider, info.threads, info.batch_size) == ("cpu", "CPUExecutionProvider", 2, 7)
        assert not info.cuda_graphs
        assert set(info.versions) == {"pdeinfer", "package", "onnxruntime", "numpy"}

    def test_labels_and_repr_tell_what_it_is(self, package_folder: Path) -> None:
        predictor = Predictor(package_folder, device="cpu")
        assert predictor.labels == GREY_PRESET.labels
        assert repr(predictor) == "<Predictor tiny-grey: 8x8x1 -> 10 classes, float32, cpu>"
        predictor.close()
        assert predictor.labels == GREY_PRESET.labels
        assert repr(predictor).endswith("closed>")

    def test_a_model_package_object_is_accepted(self, package_folder: Path) -> None:
        with Predictor(ModelPackage.read(package_folder)) as predictor:
            assert predictor.info().path == package_folder

    def test_a_package_of_an_earlier_version_with_a_half_precision_file_loads_without_it(
        self, package_folder: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(package_folder, tmp_path / "older"))
        shutil.copyfile(folder / ONNX_FILE, folder / "model.half.onnx")
        write_card(folder, replace(ModelPackage.read(package_folder).card, variants={"half": {"test_accuracy": 0.97}}))
        older = ModelPackage.read(folder)
        older.verify_checksums()
        assert older.precisions == ("float32",)
        with Predictor(older) as predictor, Predictor(package_folder) as expected:
            assert np.array_equal(predictor.predict_proba(IMAGES), expected.predict_proba(IMAGES))

    @pytest.mark.parametrize(("precision", "error"), [("int8", ModelPackageError), ("half", ValueError)])
    def test_a_missing_and_an_unknown_precision_are_named(
        self, package_folder: Path, precision: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match=precision):
            Predictor(package_folder, precision=precision)

    def test_a_closed_predictor_raises_predictor_closed_error(self, package_folder: Path) -> None:
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
            lambda: pickle.dumps(predictor),
        ):
            with pytest.raises(PredictorClosedError):
                call()

    def test_calls_in_progress_finish_after_close(self, package_folder: Path) -> None:
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

    def test_closing_during_predictions_gives_results_or_predictor_closed_error(self, package_folder: Path) -> None:
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


class TestCuda:
    """A Predictor on CUDA behaves as on the CPU."""

    @pytest.fixture(autouse=True)
    def cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())

    @pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
    def test_info_describes_what_runs(self, package_folder: Path, device: str) -> None:
        with Predictor(package_folder, device=device) as predictor:
            info = predictor.info()
        assert (info.device, info.provider) == ("cuda:0", "CUDAExecutionProvider")
        assert (info.pde_layers, info.cuda_graphs, info.batch_size) == ("standard", True, 256)

    @pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 33, 70])
    def test_any_number_of_images_gives_a_row_each(
        self, package_folder: Path, count: int, tiny_probabilities: Reference
    ) -> None:
        images = np.random.default_rng(4).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        with Predictor(package_folder, device="cuda", batch_size=32) as predictor:
            result = predictor.predict_proba(images)
            assert list(predictor.predict_iter(images)) == predictor.predict(images)
        assert np.allclose(result, tiny_probabilities(GREY_PRESET, images), rtol=0, atol=1e-6)

    def test_features_are_those_of_the_cpu(self, tmp_path: Path) -> None:
        folder = write_tiny_package(tmp_path / "p", GREY_PRESET, has_features=True)
        with Predictor(folder, device="cuda", batch_size=8) as predictor, Predictor(folder, device="cpu") as expected:
            assert predictor.num_features == 64
            assert np.array_equal(predictor.embed(IMAGES), expected.embed(IMAGES))
            assert np.array_equal(predictor.embed(list(IMAGES)), expected.embed(IMAGES))

    def test_a_device_that_is_not_there_is_a_device_error(self, package_folder: Path) -> None:
        with pytest.raises(DeviceError, match=r"cuda:99 .*invalid device ordinal 99"):
            Predictor(package_folder, device="cuda:99")

    def test_many_threads_share_several_models_on_one_device(
        self, package_folder: Path, rgb_package_folder: Path, tiny_probabilities: Reference
    ) -> None:
        rng = np.random.default_rng(5)
        jobs = []
        with (
            Predictor(package_folder, device="cuda", batch_size=8) as grey,
            Predictor(rgb_package_folder, device="cuda", batch_size=8) as rgb,
            ThreadPoolExecutor(8) as pool,
        ):
            for number in range(64):
                preset, predictor = ((GREY_PRESET, grey), (RGB_PRESET, rgb))[number % 2]
                spec = preset.input
                shape = (number % 11, spec.height, spec.width, spec.channels)
                images = rng.integers(0, 256, shape, dtype=np.uint8)
                jobs.append((pool.submit(predictor.predict_proba, images), tiny_probabilities(preset, images)))
            assert all(np.allclose(job.result(), expected, rtol=0, atol=1e-5) for job, expected in jobs)

    def test_calls_in_progress_finish_after_close(self, package_folder: Path) -> None:
        predictor = Predictor(package_folder, device="cuda", batch_size=2)
        expected = predictor.predict(list(IMAGES))
        iterator = predictor.predict_iter(IMAGES)
        predictor.close()
        assert list(iterator) == expected
        with pytest.raises(PredictorClosedError):
            predictor.info()

    def test_a_pickled_predictor_has_the_same_options(self, package_folder: Path) -> None:
        with Predictor(package_folder, device="cuda", batch_size=3, gpu_mem_limit=2**30) as predictor:
            content, info = pickle.dumps(predictor), predictor.info()
            expected = predictor.predict_proba(IMAGES)
        with pickle.loads(content) as restored:  # noqa: S301  # our own
            assert restored.info() == info
            assert restored._gpu_mem_limit == 2**30
            assert np.array_equal(restored.predict_proba(IMAGES), expected)

    @needs_fork
    def test_a_forked_child_is_refused_and_ends_normally(self, package_folder: Path) -> None:
        program = f"""
import os, sys, numpy as np
from tests.runtime.cuda_on_cpu import CudaOnCpu
sys.modules["onnxruntime"] = CudaOnCpu()
from pdeinfer import DeviceError, Predictor
predictor = Predictor({str(package_folder)!r}, device="cuda", batch_size=8)
IMAGE = np.zeros((8, 8), np.uint8)
expected = predictor.predict(IMAGE)
child = os.fork()
if child == 0:
    try:
        predictor.predict(IMAGE)
    except DeviceError:
        sys.exit(3)
    sys.exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert predictor.predict(IMAGE) == expected
"""
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")


class TestProcesses:
    """Pickling and forking."""

    def test_a_pickled_predictor_has_the_same_package_options_and_predictions(
        self, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(package_folder.parent)
        with Predictor(package_folder.name, device="cpu", threads=2, batch_size=7) as predictor:
            content, info, expected = pickle.dumps(predictor), predictor.info(), predictor.predict_proba(IMAGES)
        monkeypatch.chdir(tmp_path)
        assert len(content) < 1000  # not the network
        with pickle.loads(content) as restored:  # noqa: S301  # our own
            assert restored.info() == replace(info, path=package_folder)
            assert np.array_equal(restored.predict_proba(IMAGES), expected)

    def test_a_pickled_predictor_has_the_same_colours_and_threshold(self, rgb_package_folder: Path) -> None:
        image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        with Predictor(rgb_package_folder, channels="bgr", threshold=1.0) as predictor:
            content, expected = pickle.dumps(predictor), predictor.predict(image)
        with pickle.loads(content) as restored:  # noqa: S301  # our own
            assert restored.predict(image) == expected
        assert expected.label is None

    def test_a_pickled_predictor_chooses_device_and_threads_anew_if_they_were_not_given(
        self, package_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = pickle.dumps(Predictor(package_folder))
        monkeypatch.setattr("pdeinfer.runtime.session.available_cpus", lambda: 3)
        assert pickle.loads(content).info().threads == 3  # noqa: S301  # our own

    def test_a_pickled_predictor_of_a_bundled_model_does_not_depend_on_where_pdeinfer_is_installed(self) -> None:
        content = pickle.dumps(Predictor("digits-pde"))
        assert b"digits-pde" in content
        assert os.fsencode(zoo.load("digits-pde").path) not in content

    @needs_fork
    @pytest.mark.parametrize(
        ("in_child", "threads"),
        [
            ("pass", 2),
            ("predictor.predict(IMAGE)", 1),
            ("predictor.predict(IMAGE); predictor.close()", 2),
            ("pickle.loads(pickle.dumps(predictor)).predict(IMAGE)", 2),
            ("fork_and('predictor.predict(IMAGE)')", 2),
        ],
    )
    def test_a_forked_child_ends_normally(self, in_child: str, threads: int) -> None:
        program = f"""
import os, pickle, sys, numpy as np
from pdeinfer import Predictor
IMAGE = np.zeros((8, 8), np.uint8)

def fork_and(code):
    child = os.fork()
    if child == 0:
        exec(code)
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

predictor = Predictor("digits-pde", threads={threads}, device="cpu")
expected = predictor.predict(IMAGE)
fork_and({in_child!r})
assert predictor.predict(IMAGE) == expected
"""
        # Python 3.12 and newer warn that a process with threads forks.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_child_process_opens_its_own_session_once(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = predictor.predict_proba(IMAGES)
        monkeypatch.setattr(predictor, "_session", replace(predictor._session, _process=-1))
        inherited = predictor._session
        assert np.array_equal(predictor.predict_proba(IMAGES), expected)
        own = predictor._session
        assert own is not inherited
        predictor.predict_proba(IMAGES)
        assert predictor._session is own

    def test_cuda_is_refused_in_a_forked_child(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predictor, "_session", replace(predictor._session, device="cuda:0", _process=-1))
        with pytest.raises(DeviceError, match=r"cuda:0 .*spawn"):
            predictor.predict(IMAGES[0])
