"""Imports `serving` and `training`, the packages that are installed beside `pdeinfer`."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from pdeinfer.errors import MissingDependencyError, PdeinferError

_ROOT = Path(__file__).resolve().parents[2]


def import_sibling(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of `serving` or `training`.

    Args:
        module: its full name.
        extra, purpose: of pdeinfer, for the error if a dependency is missing.

    Raises:
        PdeinferError: another package of that name comes first on Python's import path.
        MissingDependencyError: a dependency is not installed.
    """
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent != _ROOT / package:
        raise PdeinferError(
            f"{purpose} needs pdeinfer's own package {package!r}, but Python found another one first: {spec.origin}. "
            "Run the `pdeinfer` command instead of `python -m pdeinfer`, and remove that folder from PYTHONPATH, "
            "or rename it"
        )
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("pdeinfer", package):
            raise  # not a missing dependency but a mistake in our own code
        raise MissingDependencyError(str(error.name), extra, purpose) from error
