"""The README's examples do what the README says, word for word.

`console` blocks are run as `tests.documents` says; a `pycon` block is a doctest. What only sets up a machine stands in
`sh` blocks, and other tests run it.
"""

import doctest
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdeinfer.package import zoo
from tests.documents import ROOT, broken_links, code_blocks, console_examples, matches, run_examples, serve

README = ROOT / "README.md"
# The beginnings of the commands in `sh` blocks. The Makefile, the Dockerfile and the installed wheel are tested in
# tests/packaging; a fixture here starts the server.
SET_UP = (
    "make demo",
    "make test",
    "pip install '.[",
    "docker build --tag pdeinfer",
    "docker run --rm",
    "pdeinfer serve",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's reader stands, with the repository's example images."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """The port of a running `pdeinfer serve`."""
    with serve(folder) as port:
        yield port


@pytest.mark.parametrize("text", [text for language, text in code_blocks(README) if language == "pycon"])
def test_python_examples(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    report: list[str] = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(report)


def test_console_examples(folder: Path, port: int) -> None:
    examples = console_examples(README)
    assert examples
    run_examples(examples, folder, port)


def test_set_up_commands_are_ones_that_other_tests_run() -> None:
    commands = [line for language, text in code_blocks(README) if language == "sh" for line in text.splitlines()]
    assert commands
    assert [command for command in commands if not command.startswith(SET_UP)] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z]+)", README.read_text())) <= set(targets)


def test_links_lead_to_files_of_the_repository() -> None:
    assert broken_links(README) == []


@pytest.mark.parametrize(("expected", "output"), [("a ... c", "a b\nb c"), ("...", "anything"), ("", "")])
def test_the_wildcard_matches(expected: str, output: str) -> None:
    assert matches(expected, output)


def test_the_wildcard_does_not_match_everything() -> None:
    assert not matches("a ... c", "a b d")


def test_its_figures_are_those_that_were_measured() -> None:
    text = README.read_text()
    performance = (ROOT / "docs/performance.md").read_text()
    bar = r"\| ResNet32 / fused operator, K=1, batch 1, one thread +\| +[\d.]+ +\| +([\d.]+)"
    table = r"### Batch 1, one thread.*?\| pdeinfer, fused operator +\| +([\d.]+) \|"
    low, high = sorted(float(*re.findall(pattern, performance, re.DOTALL)) for pattern in (bar, table))
    assert f"| **{low:.1f} to {high:.1f} x** |" in text
    (accuracy,) = re.findall(r"\| `mnist-pde` .*\*\*(.+?)\*\*", (ROOT / "docs/results.md").read_text())
    assert f"{accuracy} %" in text
    for name in ("cifar10-global", "cifar10-resnet32"):
        card = zoo.load(name).card
        assert re.search(
            rf"\(`{name}`\) .* {100 * card.metrics['test_accuracy']:.2f} % \| [\d.]+ % \|$", text, re.MULTILINE
        )
        assert f"{100 * card.variants['int8']['test_accuracy']:.2f} %" in text


def test_no_placeholder_is_left() -> None:
    assert re.findall(r"@[A-Z]+@", README.read_text()) == []
