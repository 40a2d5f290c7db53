"""`make gpu-check` runs through without a GPU: CUDA's device is the CPU, its driver the stand-in."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.networks import FUSABLE_FILE, IMAGES_FILE, smooth_images
from pdeinfer.package import zoo
from pdeinfer.package.package import ONNX_FILE
from scripts import gpu_check as gpu_check_script
from tests.documents import ROOT
from tests.kernels.stand_in import StandIn

# Python imports a module of this name when it starts.
_SITECUSTOMIZE = """
import pathlib, sys
import pdeinfer.runtime.onnx_runtime
from tests.runtime.cuda_on_cpu import CudaOnCpu
from pdeinfer.runtime import kernel
sys.modules["onnxruntime"] = CudaOnCpu()
kernel.CUDA_LIBRARY = pathlib.Path({operator!r})
"""

GpuCheck = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def gpu_check(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuCheck:
    """Return a function of arguments that runs the check; it returns the exit code and the results."""
    (tmp_path / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(operator=str(stand_in.operator)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        output = tmp_path / "build/results.json"
        command = [sys.executable, "-m", "scripts.gpu_check", "--quick", "--output", str(output), *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=600)
        return done.returncode, json.loads(output.read_text())

    return run


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """The networks to measure, with the weights of bundled models."""
    for preset in gpu.PRESETS:
        folder = tmp_path / "networks" / preset.name
        folder.mkdir(parents=True)
        name = preset.name if preset.name in zoo.names() else "cifar10-global"
        shutil.copy(zoo.load(name).path / ONNX_FILE, folder / FUSABLE_FILE)
        np.save(folder / IMAGES_FILE, smooth_images(32, 32, 3, 4))
    return tmp_path / "networks"


@pytest.mark.slow  # half a minute of CPU time, as the next
def test_every_part_passes_or_is_skipped(gpu_check: GpuCheck, networks: Path) -> None:
    code, results = gpu_check("--networks", str(networks))

    assert code == 0, json.dumps(results, indent=2)
    assert list(results) == [
        "machine", "operator", "models", "server", "speed", "convolutions", "memcheck", "racecheck",
    ]  # fmt: skip
    assert {name for name, result in results.items() if result["passed"]} >= {
        "machine", "operator", "models", "server", "speed", "convolutions",
    }  # fmt: skip
    assert results["models"]["models"]["cifar10-global"]["pde_layers"] == "fused"
    assert results["server"]["cuda_graphs"]
    assert results["server"]["load"]["images_per_second"] > 0
    routes = results["speed"]["networks"]["global-k5, batch 4"]["milliseconds"]
    assert {gpu.PLAIN, gpu.GRAPHS, gpu.FUSED, gpu.SESSION} <= routes.keys()


@pytest.mark.slow
def test_a_part_that_fails_hides_no_other(gpu_check: GpuCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDEINFER_KERNEL", "0")
    code, results = gpu_check()

    assert code == 1
    assert results["operator"]["passed"] is False
    assert "not claimed" in results["operator"]["reason"]
    assert results["server"]["passed"]
    assert results["speed"] == {**results["speed"], "passed": None, "reason": "it needs --networks FOLDER"}


@pytest.mark.parametrize(
    ("program", "found", "reason"),
    [
        ("sleep 60", {"networks": 3}, "longer than 0.5 s"),
        ("kill -SEGV $$", {"networks": 3}, "exit code -11"),
        ("exit 3", {"networks": 3}, "exit code 3"),
    ],
)
def test_what_a_part_found_before_it_died_is_kept(
    program: str, found: dict[str, int], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable = tmp_path / "python"
    executable.write_text(f'#!/bin/sh\necho \'{{"passed": true, "networks": 3}}\'\n{program}\n')
    executable.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(executable))

    result = gpu_check_script._run_in_process("speed", 0.5, argparse.Namespace(quick=True, networks=None))

    assert result["passed"] is False
    assert reason in result["reason"]
    assert found.items() <= result.items()


def test_a_part_that_prints_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    result = gpu_check_script._run_in_process("speed", 5, argparse.Namespace(quick=True, networks=None))

    assert result["passed"] is False
