"""A program that a type checker checks may pass the Predictor whatever it takes."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gzip
import os
import zipfile
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, assert_type

import numpy as np
import PIL.Image
from pdeinfer import Prediction, Predictor

# What OpenCV's functions return, as its stubs have it.
MatLike = np.ndarray[Any, np.dtype[np.integer[Any] | np.floating[Any]]]


def check(predictor: Predictor, opencv: MatLike) -> None:
    assert_type(predictor.predict("a.png"), Prediction)
    assert_type(predictor.predict(Path("a.png")), Prediction)
    for entry in os.scandir(b"images"):
        assert_type(predictor.predict(entry), Prediction)
    for content in (b"", bytearray(), memoryview(b"")):
        assert_type(predictor.predict(content), Prediction)
    with Path("a.png").open("rb") as file, gzip.open("a.png.gz") as unpacked, SpooledTemporaryFile() as upload:
        assert_type(predictor.predict(file), Prediction)
        assert_type(predictor.predict(unpacked), Prediction)
        assert_type(predictor.predict(upload), Prediction)
        assert_type(predictor.predict([file, unpacked]), list[Prediction])
    with zipfile.ZipFile("a.zip") as archive, archive.open("a.png") as member:
        assert_type(predictor.predict(member), Prediction)
    assert_type(predictor.predict(PIL.Image.new("L", (8, 8))), Prediction)
    print(predictor.predict(opencv).label)
    for prediction in predictor.predict(np.zeros((2, 8, 8, 1), np.uint8)):
        print(prediction.label)
    predictor.predict(3)  # type: ignore[call-overload]

    for prediction in predictor.predict_iter([opencv]):
        print(prediction.label)
    predictor.predict_iter([bytearray(), "a.png", b"", Path("a.png")], on_error="yield")
    assert_type(predictor.rank([0.1] * 10), Prediction)
"""


@pytest.mark.slow
def test_a_program_with_every_kind_of_image_passes_a_type_checker(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"]
    done = subprocess.run([*command, str(tmp_path / "program.py")], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Success"), done.stdout
