"""The fused operator for CUDA on the stand-in for its driver: kernels, launches, code and its cache, sessions."""

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pdeinfer import Predictor
from pdeinfer.errors import ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.package.package import INPUT_NAME, ONNX_FILE, OUTPUT_NAME
from pdeinfer.runtime import kernel
from pdeinfer.runtime.session import create_session
from tests.kernels.layers import STRUCTURES, make_layer
from tests.kernels.operators import error, run
from tests.kernels.stand_in import StandIn, build_operator
from tests.runtime.cuda_on_cpu import CudaOnCpu

# The largest error, relative to the largest value. Measured with the stand-in: 3.3e-7.
TOLERANCE = 1e-6

# Maps in shared memory: the networks' own; rows that fill no strip; the largest; one channel and one row.
SHARED = [
    (1, 32, 32, 16),
    (3, 16, 16, 32),
    (2, 8, 8, 64),
    (2, 28, 28, 1),
    (2, 7, 5, 3),
    (1, 31, 33, 5),
    (1, 64, 64, 2),
    (1, 68, 60, 1),
    (1, 1, 1024, 1),
    (1, 4096, 1, 1),
    (2, 1, 1, 9),
    # Padded rows fit, but not with what then has to follow the last one: these rows are not padded.
    (1, 455, 4, 1),
    (1, 65, 60, 1),
    (1, 39, 100, 1),
]
# One point more than fits, and one column.
GLOBAL = [(1, 65, 64, 2), (2, 3, 1025, 3), (1, 4097, 1, 1)]


@pytest.mark.parametrize("num_steps", range(1, 11))
@pytest.mark.parametrize("shape", [*SHARED, *GLOBAL], ids=str)
def test_every_number_of_steps_equals_the_scheme(
    shape: tuple[int, int, int, int], num_steps: int, cuda_operator: StandIn
) -> None:
    structure = STRUCTURES[(num_steps + shape[1]) % len(STRUCTURES)]
    layer = make_layer(structure, shape, num_steps, start=num_steps % 3 == 0)
    assert error(run(layer), layer.scheme()) < TOLERANCE
    if shape in GLOBAL:
        expected = {"step_in_global_memory": num_steps}
    else:
        expected = {"solve_one_step" if num_steps == 1 else "solve": 1}
    assert {name: count for name, count in cuda_operator.launches().items() if count} == expected


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_the_order_of_threads_does_not_change_results(
    structure: str, start: bool, num_steps: int, cuda_operator: StandIn
) -> None:
    for shape in ((1, 16, 12, 9), (1, 9, 7, 4), (1, 65, 64, 1)):
        layer = make_layer(structure, shape, num_steps, start=start)
        cuda_operator.state.is_descending = False
        result = run(layer)
        cuda_operator.state.is_descending = True
        assert np.array_equal(run(layer), result)
        assert error(result, layer.scheme()) < TOLERANCE


@pytest.mark.parametrize("structure", ["convolutions", "maps"])
@pytest.mark.parametrize("shape", [(1, 32, 32, 16), (3, 8, 8, 13), (2, 28, 28, 5), (1, 9, 7, 20)], ids=str)
def test_results_do_not_depend_on_how_channels_are_divided_among_blocks(
    structure: str, shape: tuple[int, int, int, int], cuda_operator: StandIn
) -> None:
    layer = make_layer(structure, shape, 3)
    results = []
    planes = set()
    for multiprocessors in (1, 8, 1000):
        cuda_operator.state.multiprocessors = multiprocessors
        results.append(run(layer))
        planes.add(cuda_operator.state.block.z)
    assert len(planes) > 1
    assert all(np.array_equal(result, results[0]) for result in results)
    assert error(results[0], layer.scheme()) < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "small", "large"),
    [
        ((1, 32, 32, 16), (32, 8, 1), (32, 8, 4)),
        ((1, 16, 16, 32), (16, 4, 1), (16, 4, 8)),
        ((1, 8, 8, 64), (8, 2, 1), (8, 2, 8)),
        ((1, 8, 8, 3), (8, 2, 1), (8, 2, 3)),
        ((1, 28, 28, 1), (28, 7, 1), (28, 7, 1)),
    ],
    ids=str,
)
def test_small_batches_spread_over_multiprocessors_and_large_ones_read_whole_sectors_of_memory(
    shape: tuple[int, int, int, int],
    small: tuple[int, int, int],
    large: tuple[int, int, int],
    cuda_operator: StandIn,
) -> None:
    state = cuda_operator.state
    for multiprocessors, block in ((132, small), (1, large)):  # one image is a large batch to one multiprocessor
        state.multiprocessors = multiprocessors
        run(make_layer("neither", shape))
        assert (state.block.x, state.block.y, state.block.z) == block
        assert state.grid.x == -(shape[3] // -block[2])


def test_an_image_whose_values_an_int_cannot_count_is_an_error(cuda_operator: StandIn) -> None:
    layer = make_layer("neither", (0, 2**16, 2**15, 1))
    with pytest.raises(ModelPackageError, match=r"h is too large: \(0, 65536, 32768, 1\)"):
        run(layer)
    assert not any(cuda_operator.launches().values())


@pytest.mark.parametrize("name", [name for name in zoo.names() if name != "cifar10-resnet32"])
def test_bundled_models_give_the_same_probabilities(name: str, cuda_operator: StandIn) -> None:
    spec = zoo.load(name).card.preset.input
    images = np.random.default_rng(0).integers(0, 256, (3, spec.height, spec.width, spec.channels), np.uint8)
    with Predictor(name, device="cpu") as predictor:
        assert predictor.info().pde_layers == "fused"
        fused = predictor.predict_proba(images)
    assert sum(cuda_operator.launches().values()) > 0
    session = create_session((zoo.load(name).path / ONNX_FILE).read_bytes(), "cpu", 1, fused=False)
    standard = session.run(OUTPUT_NAME, {INPUT_NAME: images})
    assert np.abs(fused - standard).max() < 1e-5


class TestCode:
    """Machine code is compiled once for a kind of GPU, and kept in the user's cache folder."""

    @pytest.fixture
    def restart(self, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        """Return a function that runs a layer as a new process would, and returns how often that compiled."""
        count = 0

        def run_anew() -> int:
            nonlocal count
            count += 1
            copy = shutil.copy(stand_in.operator, tmp_path / f"operator{count}.so")  # has loaded nothing yet
            monkeypatch.setattr(kernel, "LIBRARY", Path(copy))
            before = stand_in.state.compilations, stand_in.state.code_loads
            layer = make_layer("convolutions", (1, 4, 5, 3))
            assert error(run(layer), layer.scheme()) < TOLERANCE
            assert stand_in.state.code_loads == before[1] + 1
            return int(stand_in.state.compilations - before[0])

        return run_anew

    @staticmethod
    def cached() -> Path:
        (file,) = (Path(os.environ["XDG_CACHE_HOME"]) / "pdeinfer").iterdir()
        return file

    def test_a_process_loads_code_once_for_all_layers_and_sessions(self, cuda_operator: StandIn) -> None:
        cuda_operator.state.minor = 7  # no earlier test has
        for _ in range(2):
            run(make_layer("convolutions", (1, 4, 5, 3)))
        assert (cuda_operator.state.compilations, cuda_operator.state.code_loads) == (1, 1)

    def test_the_next_process_takes_the_code_from_the_cache(self, restart: Callable[[], int]) -> None:
        assert [restart(), restart()] == [1, 0]
        assert stat.S_IMODE(self.cached().stat().st_mode) == 0o600
        assert stat.S_IMODE(self.cached().parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize(("name", "value"), [("major", 8), ("minor", 6), ("driver_version", 12080)])
    def test_another_gpu_or_driver_has_code_of_its_own(
        self, name: str, value: int, restart: Callable[[], int], stand_in: StandIn
    ) -> None:
        assert restart() == 1
        setattr(stand_in.state, name, value)
        assert [restart(), restart()] == [1, 0]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(file.read_bytes()[:-1]),
            lambda file: file.write_bytes(file.read_bytes() + b" "),
            lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
            lambda file: file.write_bytes(b"?" + file.read_bytes()[1:]),
            lambda file: file.chmod(0o622),
            lambda file: file.rename(file.with_name("other")) and file.symlink_to("other"),
        ],
        ids=["empty", "short", "long", "other code", "other header", "writable by others", "link"],
    )
    def test_a_damaged_or_foreign_file_is_ignored_and_replaced(
        self, damage: Callable[[Path], object], restart: Callable[[], int]
    ) -> None:
        assert restart() == 1
        file = self.cached()
        good = file.read_bytes()
        damage(file)
        assert [restart(), restart()] == [1, 0]
        assert file.read_bytes() == good
        assert file.is_file()
        assert not file.is_symlink()

    def test_the_code_of_another_gpu_under_this_name_is_ignored(
        self, restart: Callable[[], int], stand_in: StandIn
    ) -> None:
        assert restart() == 1
        file = self.cached()
        stand_in.state.major = 8
        assert restart() == 1
        (other,) = set(file.parent.iterdir()) - {file}
        shutil.copyfile(file, other)
        assert [restart(), restart()] == [1, 0]

    def test_intact_code_that_the_driver_refuses_is_compiled_again(
        self, restart: Callable[[], int], stand_in: StandIn
    ) -> None:
        assert restart() == 1
        file = self.cached()
        good = file.read_bytes()
        stand_in.state.is_refusing_once = True
        assert restart() == 1
        assert file.read_bytes() == good

    @pytest.mark.parametrize("cache", ["a file", "missing/parents", "relative", ""])
    def test_layers_run_without_a_cache_folder(
        self, cache: str, restart: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a file").touch()
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", cache if cache in ("relative", "") else str(tmp_path / cache))
        before = set(tmp_path.iterdir())
        assert [restart(), restart()] == [1, 1]
        assert {path.suffix for path in set(tmp_path.iterdir()) - before} == {".so"}

    def test_the_cache_is_in_the_home_folder_by_default(
        self, restart: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert [restart(), restart()] == [1, 0]
        assert len(list((tmp_path / ".cache/pdeinfer").iterdir())) == 1


class TestSessions:
    """Sessions on CUDA: their PDE layers are fused where that works, else in standard operators."""

    LAYER = make_layer("convolutions", (2, 6, 5, 7), 2)

    @pytest.fixture(autouse=True)
    def cuda(self, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())
        monkeypatch.setattr(kernel, "CUDA_LIBRARY", stand_in.operator)

    def check(self, pde_layers: str, *, fused: bool = True) -> None:
        model = self.LAYER.model()
        session = create_session(model.SerializeToString(), "cuda", 1, fused=fused)
        assert (session.device, session.pde_layers) == ("cuda:0", pde_layers)
        assert np.allclose(session.run("result", self.LAYER.feeds(model)), self.LAYER.scheme(), rtol=1e-5, atol=1e-6)

    def test_pde_layers_run_in_the_operator(self, stand_in: StandIn) -> None:
        self.check("fused")
        assert stand_in.launches()["solve"] > 0

    def test_a_session_can_run_without_the_operator(self, stand_in: StandIn) -> None:
        self.check("standard", fused=False)
        assert not any(stand_in.launches().values())

    def test_the_environment_variable_turns_the_operator_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PDEINFER_KERNEL", "0")
        self.check("standard")

    def test_the_function_runs_if_the_library_is_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(kernel, "CUDA_LIBRARY", tmp_path / "none.so")
        self.check("standard")

    @pytest.mark.parametrize("without", ["driver", "function", "NVRTC"])
    def test_the_function_runs_without_the_driver_or_nvrtc_and_a_log_says_why(
        self,
        without: str,
        stand_in: StandIn,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        driver, missing = {
            "driver": (tmp_path / "none.so", "none.so"),
            "function": (kernel.LIBRARY, "cuInit"),
            "NVRTC": (stand_in.driver, "libnvrtc"),
        }[without]
        operator = build_operator(tmp_path / "operator.so", driver, tmp_path / "none.so")
        monkeypatch.setattr(kernel, "CUDA_LIBRARY", operator)
        with caplog.at_level("INFO"):
            self.check("standard")
        (record,) = caplog.records
        assert "cuda:0" in record.message
        assert missing in record.message

    def test_the_function_runs_if_nvrtc_fails_and_a_log_says_why(
        self, stand_in: StandIn, caplog: pytest.LogCaptureFixture
    ) -> None:
        stand_in.state.minor = 8  # no code has been loaded for it
        stand_in.state.compile_error = 6
        with caplog.at_level("INFO"):
            self.check("standard")
        (record,) = caplog.records
        assert "cuda:0" in record.message
        assert "sm_98" in record.message
        assert "the log" in record.message

    def test_the_function_runs_if_the_driver_has_no_such_device(self, stand_in: StandIn) -> None:
        stand_in.state.devices = 0
        self.check("standard")

    def test_the_function_runs_if_the_provider_does_not_claim_the_operator(
        self, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, tmp_path: Path
    ) -> None:
        operator = build_operator(tmp_path / "operator.so", stand_in.driver, provider="CUDAExecutionProvider")
        monkeypatch.setattr(kernel, "CUDA_LIBRARY", operator)
        self.check("standard")

    def test_sessions_on_the_cpu_keep_the_operator_for_cpus(self, stand_in: StandIn) -> None:
        self.check("fused")
        session = create_session(self.LAYER.model().SerializeToString(), "cpu", 1)
        assert session.pde_layers == "fused"
        before = stand_in.launches()
        session.run("result", self.LAYER.feeds(self.LAYER.model()))
        assert stand_in.launches() == before


class TestCompiler:
    """The kernels' text and the real NVRTC."""

    @staticmethod
    def nvrtc() -> Path:
        spec = importlib.util.find_spec("nvidia")
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in Path(folder).glob("*/lib/libnvrtc.so.*"):
                return file
        pytest.skip("there is no NVRTC here: `pip install '.[dev]'` brings it")

    @pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)], ids=str)
    def test_it_compiles_the_kernels_for_every_generation_of_gpus(
        self, capability: tuple[int, int], stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in.state.major, stand_in.state.minor = capability
        operator = build_operator(tmp_path / "operator.so", stand_in.driver, self.nvrtc())
        monkeypatch.setattr(kernel, "LIBRARY", operator)
        run(make_layer("convolutions", (1, 4, 5, 3)))
        code = TestCode.cached().read_bytes()
        assert b"\x7fELF" in code
        assert all(name.encode() in code for name in stand_in.launches())
