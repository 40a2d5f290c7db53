"""The quick benchmark times routes in turns, and only if their outputs are equal."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import quick
from benchmarks.timing import Timing, time_in_turns
from pdeinfer import ModelPackage, ParityError, Predictor
from pdeinfer.package import zoo

Captured = pytest.CaptureFixture[str]


def test_routes_take_turns_in_an_order_that_rotates() -> None:
    order: list[str] = []
    routes = {name: lambda name=name: order.append(name) for name in "abc"}

    time_in_turns(routes, rounds=3, sample_seconds=0)

    assert "".join(order[-9:]) == "abcbcacab"


def test_times_are_per_call() -> None:
    timings = time_in_turns({"2 ms": lambda: time.sleep(0.002), "10 ms": lambda: time.sleep(0.01)}, rounds=5)

    assert 0.002 <= timings["2 ms"].median < timings["10 ms"].median
    assert 0.01 <= timings["10 ms"].lower_quartile <= timings["10 ms"].median <= timings["10 ms"].upper_quartile


@pytest.mark.slow
def test_predictor_and_keras_are_measured_on_the_default_model() -> None:
    timings = quick.measure_in_new_process(zoo.load(zoo.DEFAULT_MODEL), threads=1)

    assert timings.keys() == {1, 64}
    with Predictor() as predictor:
        unfused = {quick.UNFUSED} if predictor.info().pde_layers == "fused" else set()
    assert all(routes.keys() == {quick.PREDICTOR, quick.KERAS} | unfused for routes in timings.values())


def test_a_package_without_its_original_is_measured_alone(package_folder: Path) -> None:
    timings = quick.measure(ModelPackage.read(package_folder), threads=1)

    assert all(routes.keys() == {quick.PREDICTOR} for routes in timings.values())


def test_routes_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def uniform(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 10), 0.1, np.float32)

    monkeypatch.setattr(quick, "open_keras", lambda *_: uniform)
    monkeypatch.setattr(quick, "time_in_turns", lambda *_: pytest.fail("timed"))

    with pytest.raises(ParityError, match="Predictor against Keras predict"):
        quick.measure(zoo.load(zoo.DEFAULT_MODEL), threads=1)


def test_rows_show_the_speed_relative_to_keras(capsys: Captured) -> None:
    timings = {64: {"Predictor": Timing(0.002, 0.001, 0.003), "Keras predict": Timing(0.05, 0.04, 0.06)}}

    quick.print_rows("a-model", 2, timings)

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["a-model", "2", "64", "Predictor", "2.000", "1.000", "-", "3.000", "32,000", "25.0"],
        ["a-model", "2", "64", "Keras", "predict", "50.000", "40.000", "-", "60.000", "1,280", "1.0"],
    ]


def test_an_unknown_package_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "argv", ["quick", "no-such-package"])

    assert quick.main() == 2

    assert capsys.readouterr().err.startswith("benchmark: 'no-such-package' is neither")
