"""Training uses oneDNN's kernels on every CPU, and changes nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from training.onednn import prefer_onednn

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
