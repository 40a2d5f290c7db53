"""Imports ONNX Runtime, explains a broken installation, and tells its errors from others."""

import functools
import os
from typing import Any

from pdeinfer.errors import MissingDependencyError
from pdeinfer.processes import ctrl_c_held_back

# Newer versions send usage data to Microsoft unless this is set before they are imported. The thread that sends it also
# makes every forked child hang at its exit. A value set by the user is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What ONNX Runtime's binding raises beside its own exceptions, which have no common base class.
_BUILTIN_ERRORS = (IndexError, KeyError, OverflowError, RuntimeError, TypeError, UnicodeDecodeError, ValueError)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingDependencyError: it is not installed, or its installation is broken; the message has the cure.
    """
    try:
        with ctrl_c_held_back():
            import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018  # pip leaves an empty package if it removes one of two installed
    except TimeoutError:  # of a signal's handler
        raise
    except (ImportError, AttributeError, OSError) as error:
        packages = installed_packages()
        if not packages:
            raise MissingDependencyError("onnxruntime", "cpu", "predicting") from error
        if len(packages) > 1:
            problem = f"but {' and '.join(packages)} are both installed and overwrite each other's files"
        else:
            problem = f"and the installed {packages[0]} cannot be imported ({error})"
        extra = "gpu" if "onnxruntime-gpu" in packages else "cpu"
        raise MissingDependencyError(
            "onnxruntime", extra, "predicting", problem=problem, cure=reinstall_command(extra)
        ) from error
    return onnxruntime


def check_error(error: Exception, device: str) -> None:
    """Raise an error again that is not ONNX Runtime's, such as one that a signal's handler raised meanwhile.

    Raises:
        MemoryError: ONNX Runtime ran out of memory, but not of a CUDA device's.
    """
    kind = type(error)  # its subclasses are an application's
    if kind not in _BUILTIN_ERRORS and not kind.__module__.startswith("onnxruntime."):
        raise error
    message = str(error)
    is_bad_alloc = "bad_alloc" in message or "bad allocation" in message  # the second is MSVC's
    if is_bad_alloc or (device == "cpu" and "Failed to allocate memory" in message):
        raise MemoryError(f"ONNX Runtime ran out of memory: {error}") from error


@functools.cache  # it reads the metadata of everything that is installed, which takes half a second
def installed_packages() -> tuple[str, ...]:
    """Return the installed distributions that contain the package `onnxruntime`: more than one is a conflict."""
    import importlib.metadata

    return tuple(sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", []))))


def reinstall_command(extra: str) -> str:
    """Return the command that replaces every installed ONNX Runtime by the one of an extra of pdeinfer."""
    install = f"pip install 'pdeinfer[{extra}]'"
    packages = installed_packages()
    return f"pip uninstall --yes {' '.join(packages)} && {install}" if packages else install
