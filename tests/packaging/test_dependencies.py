"""pyproject.toml declares every dependency that the packages import; the constraints pin all of them."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.servers import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
LINES = [line for line in (ROOT / "requirements/constraints.txt").read_text().splitlines() if not line.startswith("#")]
NAMES = [canonicalize_name(line.partition("==")[0]) for line in LINES]
OTHER_BACKENDS = {"jax", "torch"}  # imported where KERAS_BACKEND chooses them


def imported_modules(package: str) -> set[str]:
    """Return the top-level modules of others that a package imports anywhere."""
    modules = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - {"pdeinfer", "serving", "training", "benchmarks"}


def test_every_imported_distribution_is_declared() -> None:
    groups = (
        PROJECT["project"]["dependencies"],
        *(EXTRAS[name] for name in ("cpu", "heic", "serve", "grpc", "otel", "train", "litert", "parquet", "ray")),
    )
    declared = {canonicalize_name(Requirement(line).name) for line in chain(*groups)}
    distributions = packages_distributions()

    for package in ("pdeinfer", "serving", "training"):
        for module in imported_modules(package) - OTHER_BACKENDS:
            assert declared & set(map(canonicalize_name, distributions[module])), (package, module)


def test_every_constraint_is_a_name_and_an_exact_version() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES)


def test_constraints_are_sorted_and_unique() -> None:
    assert sorted(set(NAMES)) == NAMES


def test_every_requirement_is_pinned_within_its_range() -> None:
    groups = (
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *EXTRAS.values(),
    )
    versions = dict(zip(NAMES, (line.partition("==")[2] for line in LINES), strict=True))

    for requirement in map(Requirement, chain(*groups)):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_no_pre_release_of_tensorflow_is_allowed() -> None:
    """Where no release has a wheel for the Python, pip takes one, with keras-nightly in the place of keras."""
    (tensorflow,) = [line for line in map(Requirement, EXTRAS["train"]) if line.name == "tensorflow"]
    (pin,) = [line.partition("==")[2] for line in LINES if line.startswith("tensorflow==")]
    major, minor, _ = pin.split(".")

    assert not tensorflow.specifier.contains(f"{major}.{int(minor) + 1}.0rc0", prereleases=True)
