"""Options that change answers: the order of colours, features, the threshold."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pdeinfer.errors import ImageError, ModelPackageError
from pdeinfer.predictor import Predictor
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.predictor.helpers import IMAGES


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
