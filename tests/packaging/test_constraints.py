"""The pinned versions: by name and version alone, for everything that the extras ask for."""

import re
import tomllib
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.dockerfile import ROOT

LINES = [line for line in (ROOT / "requirements/constraints.txt").read_text().splitlines() if not line.startswith("#")]
NAMES = [canonicalize_name(line.partition("==")[0]) for line in LINES]


def test_every_line_is_a_name_and_an_exact_version() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES)


def test_names_are_sorted_and_differ() -> None:
    assert sorted(set(NAMES)) == NAMES


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    groups = [
        project["build-system"]["requires"],
        project["project"]["dependencies"],
        *(lines for name, lines in extras.items() if name != "gpu"),  # CI has none
    ]
    versions = dict(zip(NAMES, (line.partition("==")[2] for line in LINES), strict=True))

    for requirement in map(Requirement, chain(*groups)):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
