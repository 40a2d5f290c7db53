"""What holds for every document: links, doctests, named files."""

import re
from pathlib import Path

import pytest
import yaml

from pdeinfer import __version__
from tests.documents import DOCUMENTS, ROOT, broken_links, code_blocks, failed_doctests, matches

WITH_DOCTESTS = [path for path in DOCUMENTS if any(language == "pycon" for language, _ in code_blocks(path))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_to_files_of_the_repository(document: Path) -> None:
    assert broken_links(document) == []


@pytest.mark.parametrize("document", WITH_DOCTESTS, ids=relative)
def test_python_examples_have_their_output(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    assert failed_doctests(document) == ""


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=relative)
def test_files_named_in_text_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:benchmarks|docs|examples|pdeinfer|requirements|results|serving|tests|training)/[\w/.-]+)`",
        document.read_text(encoding="utf-8"),
    )

    assert sorted({name for name in named if not (ROOT / name).exists()}) == []


@pytest.mark.parametrize(("expected", "output"), [("a ... c", "a b\nb c"), ("...", "anything"), ("", "")])
def test_the_wildcard_matches(expected: str, output: str) -> None:
    assert matches(expected, output)


def test_the_wildcard_does_not_match_everything() -> None:
    assert not matches("a ... c", "a b d")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert str(citation["version"]) == __version__
    assert citation["references"][0]["title"] == "Condensing CNNs With Partial Differential Equations"
