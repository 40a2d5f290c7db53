"""The public names of `import pdeinfer`, and the modules that it must not load."""

import importlib.metadata
import pickle
import subprocess
import sys
from inspect import ismodule

import pytest

import pdeinfer
from pdeinfer import errors


def test_all_is_sorted_and_lists_exactly_the_public_names() -> None:
    assert all(hasattr(pdeinfer, name) for name in pdeinfer.__all__)
    public = {name for name, value in vars(pdeinfer).items() if not (name.startswith("_") or ismodule(value))}
    assert public - {"TYPE_CHECKING"} <= set(pdeinfer.__all__) == set(dir(pdeinfer))
    assert (
        sorted(pdeinfer.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == pdeinfer.__all__
    )


def test_every_error_is_exported_and_derives_from_pdeinfer_error() -> None:
    tree = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert all(issubclass(value, pdeinfer.PdeinferError) for value in tree.values())
    assert tree.keys() <= set(pdeinfer.__all__)


@pytest.mark.parametrize(
    "error",
    [
        errors.ImageTooLargeError("too large", 5),
        errors.MissingDependencyError("onnxruntime", "cpu", "predicting"),
        errors.MissingDependencyError("jax", None, "training", "which is broken", "cure"),
        *(
            error("why")
            for error in vars(errors).values()
            if isinstance(error, type) and error is not errors.MissingDependencyError
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_between_processes(error: errors.PdeinferError) -> None:
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert vars(restored) == vars(error)


def test_the_version_matches_the_installed_distribution() -> None:
    assert pdeinfer.__version__ == importlib.metadata.version("pdeinfer")


@pytest.mark.parametrize("statement", ["from pdeinfer import *", "import pdeinfer.cli.arguments"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    heavy = "{'tensorflow', 'keras', 'tf2onnx', 'onnx', 'onnxruntime', 'fastapi', 'pydantic', 'sklearn'}"
    program = f"import sys; {statement}; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr


def test_the_command_reaches_its_own_code_before_any_import_that_takes_a_while() -> None:
    program = "import sys, pdeinfer.cli.main; print({'numpy', 'PIL', 'argparse', 'pdeinfer.spec'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_importing_costs_less_than_importing_what_it_needs() -> None:
    """Measured as CPU time, relative to NumPy and Pillow in the same process: about 0.4."""
    program = """
import time
start = time.process_time()
import numpy, PIL.Image, PIL.JpegImagePlugin, PIL.ImageOps
needed = time.process_time()
from pdeinfer import *
print((time.process_time() - needed) / (needed - start))
"""
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 1
