"""Imports ONNX Runtime, and explains a broken installation."""

import functools
import importlib.metadata
import os
from typing import Any

from pdeinfer.errors import MissingDependencyError

# Newer versions send usage data to Microsoft unless this is set before they are imported. The thread that sends it also
# makes every forked child hang at its exit. A value set by the user is kept.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingDependencyError: it is not installed, or its installation is broken; the message has the cure.
    """
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018  # pip leaves an empty package if it removes one of two installed
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


@functools.cache  # it reads the metadata of everything that is installed, which takes half a second
def installed_packages() -> tuple[str, ...]:
    """Return the installed distributions that contain the package `onnxruntime`: more than one is a conflict."""
    return tuple(sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", []))))


def reinstall_command(extra: str) -> str:
    """Return the command that replaces every installed ONNX Runtime by the one of an extra of pdeinfer."""
    install = f"pip install 'pdeinfer[{extra}]'"
    packages = installed_packages()
    return f"pip uninstall --yes {' '.join(packages)} && {install}" if packages else install
