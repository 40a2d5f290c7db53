"""`python -m training.run --data-parallel`, on two virtual CPU devices."""

import csv
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.package import zoo
from training import run
from training.arguments import parse_arguments

TRAIN = """
import os, sys
devices = int(sys.argv.pop(1))
if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow as tf
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [device] * devices)
else:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
from training.run import main
sys.exit(main(["digits-pde", "--epochs", "2", *sys.argv[1:]]))
"""


def train(backend: str, devices: int, folder: Path, *arguments: str) -> list[dict[str, str]]:
    """Return the history of a training of two epochs in a new process."""
    # With more threads, TensorFlow sums in a different order from run to run.
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment = {**os.environ, **threads, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", TRAIN, str(devices), "--out", str(folder), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"on {'2 x cpu' if devices == 2 else 'cpu'} ({backend})" in result.stdout
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_give_the_loss_curve_of_one(backend: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    one = train(backend, 1, tmp_path / "one")
    two = train(backend, 2, tmp_path / "two", "--data-parallel")
    # Measured: 1.1 %, of the second epoch's accuracy on TensorFlow; the first steps agree within rounding, which grows.
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose([float(row[name]) for row in two], [float(row[name]) for row in one], rtol=0.03)


@pytest.mark.slow
def test_a_keras_file_teaches_two_devices(tmp_path: Path) -> None:
    teacher = str(zoo.load("digits-pde").path / "model.keras")
    rows = train("tensorflow", 2, tmp_path / "two", "--data-parallel", "--teacher", teacher)
    assert len(rows) == 2


def test_the_resume_command_keeps_what_the_record_does_not_hold() -> None:
    options = parse_arguments(
        shlex.split(
            "digits-pde --data-parallel --resume --isolate --device cpu --out runs/two --data-dir 'new place' "
            "--teacher moved.keras"
        )
    )
    expected = "digits-pde --out runs/two --resume --isolate --data-parallel --device cpu --data-dir 'new place' "
    expected += "--teacher moved.keras"
    assert options.resume_command().endswith(expected)


def test_a_single_device_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["digits-pde", "--data-parallel", "--out", str(tmp_path / "run")]) == 2
    assert "expected several devices, got ['cpu:0']" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
