"""Imports Keras and its backend without their startup messages."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pdeinfer.errors import BackendError, MissingDependencyError

_BACKENDS = ("tensorflow", "jax", "torch")


def import_keras() -> None:
    """Import Keras with its backend: TensorFlow, unless KERAS_BACKEND names another.

    Raises:
        MissingDependencyError: Keras or the backend is not installed.
        BackendError: KERAS_BACKEND names an unsupported backend.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    os.environ["KERAS_BACKEND"] = backend
    if backend not in _BACKENDS:
        raise BackendError(f"KERAS_BACKEND: expected {', '.join(_BACKENDS[:-1])} or {_BACKENDS[-1]}, got {backend!r}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _silent_stderr():
            import keras  # noqa: F401
    except ImportError as error:
        extra = None if error.name in _BACKENDS[1:] else "train"
        raise MissingDependencyError(error.name or "keras", extra, "training or exporting a network") from error


def require_tensorflow() -> None:
    """Import Keras on TensorFlow, the backend that export traces.

    Raises:
        MissingDependencyError: Keras or TensorFlow is not installed.
        BackendError: Keras runs on another backend.
    """
    import_keras()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise BackendError(f"export needs KERAS_BACKEND=tensorflow; Keras runs on {keras.backend.backend()}")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what the block writes to the process's stderr; show it only if the block fails.

    TensorFlow's libraries write a dozen lines there while they load, before their log levels take effect.
    """
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            os.dup2(before, 2)
            held_back.seek(0)
            sys.stderr.write(held_back.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
