"""A Predictor in other processes: pickled and forked."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.errors import DeviceError, ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.predictor import Predictor
from tests.conftest import RGB_PRESET, write_tiny_package
from tests.predictor.helpers import IMAGES, needs_fork


class TestProcesses:
    """Pickling and forking."""

    def test_a_pickled_predictor_has_the_same_package_options_and_predictions(
        self, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(package_folder.parent)
        with Predictor(package_folder.name, device="cpu", threads=2, batch_size=7) as predictor:
            content, info, expected = pickle.dumps(predictor), predictor.info(), predictor.predict_proba(IMAGES)
        monkeypatch.chdir(tmp_path)
        assert len(content) < 1000  # not the network
        with pickle.loads(content) as restored:  # noqa: S301  # our own
            assert restored.info() == replace(info, path=package_folder)
            assert np.array_equal(restored.predict_proba(IMAGES), expected)

    def test_a_pickled_predictor_has_the_same_colours_and_threshold(self, rgb_package_folder: Path) -> None:
        image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        with Predictor(rgb_package_folder, channels="bgr", threshold=1.0) as predictor:
            content, expected = pickle.dumps(predictor), predictor.predict(image)
        with pickle.loads(content) as restored:  # noqa: S301  # our own
            assert restored.predict(image) == expected
        assert expected.label is None

    def test_a_pickled_predictor_chooses_device_and_threads_anew_if_they_were_not_given(
        self, package_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = pickle.dumps(Predictor(package_folder))
        monkeypatch.setattr("pdeinfer.runtime.session.available_cpus", lambda: 3)
        assert pickle.loads(content).info().threads == 3  # noqa: S301  # our own

    def test_a_pickled_predictor_of_a_bundled_model_does_not_depend_on_where_pdeinfer_is_installed(self) -> None:
        content = pickle.dumps(Predictor("digits-pde"))
        assert b"digits-pde" in content
        assert os.fsencode(zoo.load("digits-pde").path) not in content

    @needs_fork
    @pytest.mark.parametrize(
        ("in_child", "threads"),
        [
            ("pass", 2),
            ("predictor.predict(IMAGE)", 1),
            ("predictor.predict(IMAGE); predictor.close()", 2),
            ("pickle.loads(pickle.dumps(predictor)).predict(IMAGE)", 2),
            ("fork_and('predictor.predict(IMAGE)')", 2),
        ],
    )
    def test_a_forked_child_ends_normally(self, in_child: str, threads: int) -> None:
        program = f"""
import os, pickle, sys, numpy as np
from pdeinfer import Predictor
IMAGE = np.zeros((8, 8), np.uint8)

def fork_and(code):
    child = os.fork()
    if child == 0:
        exec(code)
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

predictor = Predictor("digits-pde", threads={threads}, device="cpu")
expected = predictor.predict(IMAGE)
fork_and({in_child!r})
assert predictor.predict(IMAGE) == expected
"""
        # Python 3.12 and newer warn that a process with threads forks.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_child_process_opens_its_own_session_once(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = predictor.predict_proba(IMAGES)
        monkeypatch.setattr(predictor, "_session", replace(predictor._session, _process=-1))
        inherited = predictor._session
        assert np.array_equal(predictor.predict_proba(IMAGES), expected)
        own = predictor._session
        assert own is not inherited
        predictor.predict_proba(IMAGES)
        assert predictor._session is own

    def test_cuda_is_refused_in_a_forked_child(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predictor, "_session", replace(predictor._session, device="cuda:0", _process=-1))
        with pytest.raises(DeviceError, match=r"cuda:0 .*spawn"):
            predictor.predict(IMAGES[0])

    def test_a_package_by_relative_path_is_found_after_a_change_of_folder(
        self, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(package_folder.parent)
        predictor = Predictor(package_folder.name, device="cpu")
        expected = predictor.predict_proba(IMAGES)
        monkeypatch.chdir(tmp_path)
        assert np.array_equal(pickle.loads(pickle.dumps(predictor)).predict_proba(IMAGES), expected)  # noqa: S301

    def test_a_package_that_was_replaced_since_is_refused(self, package: Path) -> None:
        content = pickle.dumps(Predictor(package, device="cpu"))
        shutil.rmtree(package)
        write_tiny_package(package, RGB_PRESET)
        with pytest.raises(ModelPackageError, match="is not the package that was pickled"):
            pickle.loads(content)  # noqa: S301  # our own

    def test_a_subclass_stays_one(self, package_folder: Path) -> None:
        predictor = Named(package_folder)
        predictor.name = "first"
        for restored in (copy.copy(predictor), pickle.loads(pickle.dumps(predictor))):  # noqa: S301  # our own
            assert (type(restored), restored.name) == (Named, "first")
            assert restored.predict(IMAGES[0]) == predictor.predict(IMAGES[0])


class Named(Predictor):
    """A Predictor with an attribute of its own."""

    name = ""
