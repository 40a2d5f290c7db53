"""Which backend Keras runs on, and what is said where it cannot."""

import os
import sys

import pytest

from pdeinfer import BackendError, MissingDependencyError
from pdeinfer.backend import import_keras


def test_a_backend_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "pytorch")
    with pytest.raises(BackendError, match="KERAS_BACKEND: expected tensorflow, jax or torch, got 'pytorch'"):
        import_keras()


def test_without_keras_the_extra_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingDependencyError, match=r"needs keras, .*: pip install 'pdeinfer\[train\]'"):
        import_keras()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"]
