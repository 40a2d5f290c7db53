"""Every route gives the same probabilities, and the processes take turns."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, memory, routes
from benchmarks.networks import IMAGES_FILE, WEIGHTS_FILE, write_int8
from benchmarks.routes import FUNCTION, FUSED, PLAIN, ROUTES
from benchmarks.workers import Case, Workers
from pdeinfer import DeviceError
from pdeinfer.checks.parity import TOLERANCE, compare
from pdeinfer.checks.report import Comparison
from pdeinfer.runtime import kernel
from pdeinfer.spec.presets import Preset
from tests.runtime.cuda_on_cpu import CudaOnCpu

Written = tuple[Preset, Path]


@pytest.mark.slow
@pytest.mark.parametrize("route", [route for route in ROUTES if route not in (FUSED, PLAIN)])
def test_a_route_gives_the_probabilities_of_tf2onnx(route: str, written: Written) -> None:
    if reason := routes.why_left_out(route):
        pytest.skip(reason)
    write_int8(written[1])

    with Workers({written[0]: written[1]}, [PLAIN, route]) as workers:
        found = compare(
            (PLAIN, lambda images: workers.classify(Case(written[0].name, PLAIN, 1, 4), images)),
            (route, lambda images: workers.classify(Case(written[0].name, route, 1, 4), images)),
            {"images": np.load(written[1] / IMAGES_FILE)},
            batch_sizes=(4,),
            tolerance=None,
        ).comparisons[0]

    assert ROUTES[route].precision.explains(found)


def test_the_int8_route_comes_close_and_is_not_exact(written: Written) -> None:
    write_int8(written[1])
    images = np.load(written[1] / IMAGES_FILE)

    difference = routes.open_int8(*written, 1)(images) - routes.open_plain(*written, 1)(images)

    assert TOLERANCE < np.abs(difference).max() <= routes.INT8.tolerance


@pytest.mark.parametrize(
    ("precision", "difference", "same", "is_explained"),
    [
        (routes.FLOAT32, 1e-5, 64, True),
        (routes.FLOAT32, 2e-5, 64, False),
        (routes.FLOAT32, 0.0, 63, False),
        (routes.BF16, 0.01, 60, True),
        (routes.BF16, 0.01, 50, False),
        (routes.INT8, 0.2, 64, False),
        (routes.INT8, float("nan"), 64, False),
    ],
)
def test_a_precision_explains_small_differences(
    precision: routes.Precision, difference: float, same: int, is_explained: bool
) -> None:
    found = Comparison("images", 64, difference, 0.0, batch_size=64, top1_equal=same)

    assert precision.explains(found) is is_explained


class CompiledInBf16:
    """A stand-in for OpenVINO whose CPU computes in bf16 whatever it is asked for."""

    Core = type("Core", (), {"read_model": lambda *_: CompiledInBf16(), "compile_model": lambda *_: CompiledInBf16()})

    def reshape(self, shape: dict[str, list[int]]) -> None:
        pass

    def get_property(self, _name: str) -> "CompiledInBf16":
        return self

    def get_type_name(self) -> str:
        return "bf16"

    def create_infer_request(self) -> "CompiledInBf16":
        return self

    def infer(self, images: list[np.ndarray], **_: bool) -> list[np.ndarray]:
        return [np.full((len(images[0]), 10), 0.1, np.float32)]


def test_openvino_in_another_precision_than_asked_for_is_refused(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", CompiledInBf16)
    images = np.load(written[1] / IMAGES_FILE)

    assert routes.open_openvino_bf16(*written, 1)(images).shape == (4, 10)
    for route in (routes.OPENVINO, routes.OPENVINO_PLAIN):
        with pytest.raises(RuntimeError, match="in bf16 instead of f32"):
            ROUTES[route].open(*written, 1)(images)


def test_bf16_is_left_out_where_the_cpu_has_no_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(routes, "cpu_flags", lambda: {"avx512f", "avx512_vnni"})
    left_out = {route for route in ROUTES if routes.why_left_out(route)}
    monkeypatch.setattr(routes, "cpu_flags", lambda: {"avx512f", "avx512_bf16"})

    assert left_out == {routes.OPENVINO_BF16, routes.OPENVINO_PLAIN_BF16}
    assert not any(map(routes.why_left_out, ROUTES))


def test_the_fused_route_fails_without_the_operator(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDEINFER_KERNEL", "0")

    with pytest.raises(RuntimeError, match="run as 'standard' instead of 'fused'"):
        routes.open_fused(*written, 1)


@pytest.mark.skipif(not kernel.LIBRARY.exists(), reason="the operator is not compiled")
def test_the_fused_route_equals_the_plain_one(written: Written) -> None:
    images = np.load(written[1] / IMAGES_FILE)

    difference = routes.open_fused(*written, 1)(images) - routes.open_plain(*written, 1)(images)

    assert np.abs(difference).max() <= TOLERANCE


def test_workers_time_every_case(written: Written) -> None:
    cases = [Case(written[0].name, route, threads, 1) for route in (FUNCTION, PLAIN) for threads in (1, 2)]

    with Workers({written[0]: written[1]}, [FUNCTION, PLAIN], (1, 2), (1,)) as workers:
        timings = workers.time_in_turns(cases, rounds=2, sample_seconds=0.001)

    assert list(timings) == cases
    assert all(0 < timing.lower_quartile <= timing.median <= timing.upper_quartile for timing in timings.values())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "unheard of", routes.Route("no_such_package", routes.open_plain))

    assert routes.why_left_out("unheard of") == "no_such_package is not installed"
    assert routes.why_left_out(PLAIN) is None


def test_networks_are_reproducible_and_not_degenerate(written: Written) -> None:
    weights = np.load(written[1] / WEIGHTS_FILE)

    assert sum(array.size for array in weights.values()) > 161_402  # those that are trained, and statistics
    probabilities = routes.open_plain(*written, 1)(np.load(written[1] / IMAGES_FILE))
    assert len({row.tobytes() for row in probabilities}) == 4


def test_peak_memory_exceeds_that_of_the_imports(written: Written) -> None:
    assert 50 < memory.peak_memory(*written, PLAIN) < 10_000


def test_the_gpu_benchmark_names_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])

    assert gpu.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_the_gpu_benchmark_writes_its_networks_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(presets: list[Preset], folder: Path, count: int) -> None:
        (folder / "written").write_text(f"{len(presets)} {count}")

    def fail(_presets: list[Preset], folder: Path, _count: int) -> None:
        (folder / "half").touch()
        raise OSError("the disk is full")

    monkeypatch.setattr(gpu, "write_networks", fail)
    assert gpu.main(["--write", str(tmp_path / "networks")]) == 2
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(gpu, "write_networks", write)
    assert gpu.main(["--write", str(tmp_path / "networks")]) == 0
    assert gpu.main(["--write", str(tmp_path / "networks")]) == 2

    assert list(tmp_path.rglob("*")) == [tmp_path / "networks", tmp_path / "networks/written"]
    assert (tmp_path / "networks/written").read_text() == "3 256"
    assert "the disk is full" in (errors := capsys.readouterr().err)
    assert "networks exists already" in errors


def test_the_gpu_benchmark_names_the_routes_that_it_leaves_out(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> gpu.Run:
        raise RuntimeError("no such library\ndetails")

    def routes(*names: str) -> Callable[..., list[tuple[str, Callable[[], gpu.Run]]]]:
        made: dict[str, Callable[[], gpu.Run]] = {
            "good": lambda: lambda: np.full((2, 10), 0.1, np.float32),
            "wrong": lambda: lambda: np.eye(2, 10, dtype=np.float32),
            "broken": fail,
        }
        return lambda *_: [(name, made[name]) for name in names]

    monkeypatch.setattr(gpu, "_onnx_routes", routes("broken", "good"))
    monkeypatch.setattr(gpu, "_torch_routes", routes("wrong"))
    found, failures = gpu.measured_routes(*written, 2)

    assert list(found) == ["good"]
    assert failures[0] == "broken: no such library"
    assert failures[1].startswith("wrong: it differs\n")
    monkeypatch.setattr(gpu, "_onnx_routes", routes("broken"))
    monkeypatch.setattr(gpu, "_torch_routes", routes())
    with pytest.raises(DeviceError, match="no route can be measured: broken: no such library"):
        gpu.measured_routes(*written, 2)


def test_the_routes_of_the_gpu_benchmark_agree(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", CudaOnCpu())
    monkeypatch.setenv("PDEINFER_KERNEL", "0")
    images = np.load(written[1] / IMAGES_FILE)

    routes = dict(gpu._onnx_routes(written[1], images))
    with pytest.raises(DeviceError, match="operator"):
        routes.pop(gpu.FUSED)()
    found = [make()() for make in routes.values()]

    assert len(found) == 3
    assert all(np.abs(other - found[0]).max() <= TOLERANCE for other in found)
