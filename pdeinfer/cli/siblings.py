"""Runs the commands of `serving` and `training`, the packages that are installed with `pdeinfer`."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pdeinfer.errors import MissingDependencyError

_ROOT = Path(__file__).resolve().parents[2]


def run_sibling(module: str, arguments: Sequence[str], extra: str) -> int:
    """Call `main(arguments)` of a module of `serving` or `training`, and return its exit code.

    Args:
        module: its full name.
        arguments: the command's arguments, which `main` parses.
        extra: the extra of pdeinfer that installs the dependencies.

    Raises:
        MissingDependencyError: a dependency is not installed, or another package of the module's name comes first on
            Python's import path.
    """
    package = module.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent != _ROOT / package:
        raise MissingDependencyError(
            package,
            None,
            "this command",
            problem=f"pdeinfer's own package, but Python found another one first, {spec.origin}",
            cure="run the `pdeinfer` command instead of `python -m pdeinfer`, and remove that folder from PYTHONPATH, "
            "or rename it",
        )
    try:
        code: int = importlib.import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in ("pdeinfer", package):
            raise  # not a missing dependency but a mistake in our own code
        raise MissingDependencyError(missing, extra, package) from error
    return code
