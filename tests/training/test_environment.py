"""What a training sets before Keras is imported: the device, and oneDNN's kernels on every CPU."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from pdeinfer.errors import TrainingError
from training.environment import prefer_onednn, select_device

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
TRAIN = """
import os, sys
from training.run import main
code = main(["digits-pde", "--data-parallel", *sys.argv[1:]])  # refused once TensorFlow has told its one device
from tensorflow.python.framework import test_util
print("oneDNN:", os.environ["TF_ENABLE_ONEDNN_OPTS"], test_util.IsMklEnabled())
sys.exit(code)
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernels are TensorFlow's")
@pytest.mark.parametrize(("given", "expected"), [(None, "1 True"), ("0", "0 False")])
def test_training_run_turns_onednn_on_unless_the_environment_forbids_it(
    given: str | None, expected: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    if given is not None:
        environment[VARIABLE] = given
    command = [sys.executable, "-c", TRAIN, "--out", str(tmp_path / "run")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert f"oneDNN: {expected}" in result.stdout


def test_the_environment_is_unchanged_once_tensorflow_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    prefer_onednn()
    assert os.environ == {}
    monkeypatch.delitem(sys.modules, "tensorflow")
    prefer_onednn()
    assert os.environ == {VARIABLE: "1"}


@pytest.mark.parametrize(
    ("visible", "name", "expected"),
    [(None, "gpu:1", "1"), ("3,5", "gpu:1", "5"), ("3,5", "gpu", "3,5"), ("3,5", "cpu", "-1")],
)
def test_a_gpu_is_one_of_those_that_the_environment_lists(
    visible: str | None, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "")  # `cpu` sets it
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    select_device(name)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_gpu_that_the_environment_does_not_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(TrainingError, match="no such GPU in CUDA_VISIBLE_DEVICES=3"):
        select_device("gpu:1")
