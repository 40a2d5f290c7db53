"""The life of a Predictor: what it tells of itself, packages, threads, and closing."""

import io
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pdeinfer.errors import ModelPackageError, PredictorClosedError
from pdeinfer.package.package import ONNX_FILE, ModelPackage
from pdeinfer.package.writing import write_card
from pdeinfer.predictor import Predictor
from tests.conftest import GREY_PRESET
from tests.predictor.helpers import IMAGES, Reference


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
