"""Every route gives the same probabilities, and the processes take turns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, memory, routes
from benchmarks.networks import IMAGES_FILE, WEIGHTS_FILE
from benchmarks.routes import FUNCTION, FUSED, PLAIN, ROUTES
from benchmarks.workers import Case, Workers
from pdeinfer import DeviceError
from pdeinfer.checks.parity import TOLERANCE
from pdeinfer.runtime import kernel
from pdeinfer.spec.presets import Preset

Written = tuple[Preset, Path]


@pytest.mark.slow
@pytest.mark.parametrize("route", [route for route in ROUTES if route not in (FUSED, PLAIN)])
def test_a_route_gives_the_probabilities_of_tf2onnx(route: str, written: Written) -> None:
    if package := routes.missing_package(route):
        pytest.skip(f"{package} is not installed")
    images = np.load(written[1] / IMAGES_FILE)

    expected, found = (
        (Workers({written[0]: written[1]}, [name]), Case(written[0].name, name, 1, 4)) for name in (PLAIN, route)
    )
    with expected[0], found[0]:
        difference = expected[0].classify(expected[1], images) - found[0].classify(found[1], images)

    assert np.abs(difference).max() <= TOLERANCE


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

    assert routes.missing_package("unheard of") == "no_such_package"
    assert routes.missing_package(PLAIN) is None


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
    assert (tmp_path / "networks/written").read_text() == "4 256"
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
    found, failures = gpu.measured_routes(*written, 2, "cpu")

    assert list(found) == ["good"]
    assert failures[0] == "broken: no such library"
    assert failures[1].startswith("wrong: it differs\n")
    monkeypatch.setattr(gpu, "_onnx_routes", routes("broken"))
    monkeypatch.setattr(gpu, "_torch_routes", routes())
    with pytest.raises(DeviceError, match="no route can be measured: broken: no such library"):
        gpu.measured_routes(*written, 2, "cpu")


def test_bound_buffers_hold_the_probabilities_of_a_plain_run(written: Written) -> None:
    images = np.load(written[1] / IMAGES_FILE)

    routes = {name: make() for name, make in gpu._onnx_routes(written[1], images, "cpu")}
    found = [run() for run in routes.values()]

    assert len(found) == 6
    assert all(np.abs(other - found[0]).max() <= TOLERANCE for other in found)
