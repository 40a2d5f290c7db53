"""A Predictor on CUDA behaves as on the CPU."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.errors import DeviceError, PredictorClosedError
from pdeinfer.predictor import Predictor
from tests.conftest import GREY_PRESET, RGB_PRESET, write_tiny_package
from tests.predictor.helpers import IMAGES, Reference, needs_fork
from tests.runtime.cuda_on_cpu import CudaOnCpu


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
from tests.predictor.helpers import IMAGES, Reference, needs_fork
from tests.runtime.cuda_on_cpu import CudaOnCpu
from tests.predictor.helpers import Reference, needs_fork, IMAGES
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
