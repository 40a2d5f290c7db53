"""The README and the first tutorials do what they say, and the README's figures are those that were measured."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.results.runs import Run, read_groups
from pdeinfer.package import zoo
from tests.documents import ROOT, code_blocks, console_examples, run_examples, serve

README = ROOT / "README.md"
RESULTS = ROOT / "docs/results.md"
FIRST_PREDICTION = ROOT / "docs/first-prediction.md"
TRAIN = ROOT / "docs/train.md"
EXPORT = ROOT / "docs/export.md"
# How the commands in `sh` blocks begin. tests/packaging runs them; `pdeinfer serve` is the fixture `port`.
SET_UP = (
    "make demo",
    "make docs",
    "make test",
    "pip install '.[",
    "docker build --tag pdeinfer",
    "docker run --rm",
    "pdeinfer serve",
)
DISTILLED = "`cifar10-global-source`, distilled from cifar10-resnet32"
TRAINING = ("pdeinfer train", "pdeinfer export", "pdeinfer verify", "pdeinfer evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's example images, where the README's reader stands."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """The port of a running `pdeinfer serve`."""
    with serve(folder) as port:
        yield port


def test_the_readme_has_at_most_120_lines_beside_its_table() -> None:
    text = re.sub(
        r"<!-- results: .*?<!-- end of results -->\n", "", README.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert len(text.splitlines()) <= 120


def test_commands_have_their_output(folder: Path, port: int) -> None:
    for document in (README, FIRST_PREDICTION):
        examples = [example for example in console_examples(document) if not example[0].startswith(TRAINING)]
        assert examples
        run_examples(examples, folder, port)


@pytest.mark.slow
def test_training_and_export_have_their_output(folder: Path) -> None:
    ran: set[str] = set()
    for document in (TRAIN, EXPORT, README):
        examples = [example for example in console_examples(document) if example[0].startswith(TRAINING)]
        run_examples([example for example in examples if example[0] not in ran], folder)
        ran |= {command for command, _ in examples}
    assert {command.split()[1] for command in ran} == {"train", "export", "verify", "evaluate"}


def test_set_up_commands_are_ones_that_other_tests_run() -> None:
    commands = [line for language, text in code_blocks(README) if language == "sh" for line in text.splitlines()]
    assert commands
    assert [command for command in commands if not command.startswith(SET_UP)] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z]+)", README.read_text())) <= set(targets)


def tables() -> dict[str, dict[str, list[str]]]:
    """Return the README's tables of results, by recipe: the cells of each row, by what it calls the network."""
    found = re.findall(r"<!-- results: (.+?) -->\n(.*?)<!-- end", README.read_text(encoding="utf-8"), re.DOTALL)
    rows = {
        title: [line.split("|")[1:-1] for line in re.findall(r"^\| `.*", text, re.MULTILINE)] for title, text in found
    }
    return {
        title: {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}
        for title, lines in rows.items()
    }


def row_of(network: str) -> list[str]:
    """Return the cells of a network in the last table that has it."""
    return next(table[network] for table in reversed(tables().values()) if network in table)


def test_its_table_has_the_figures_of_the_results_page() -> None:
    page = RESULTS.read_text(encoding="utf-8").partition("## CIFAR-10")[2]

    assert tables()
    for title, table in tables().items():
        section = page.partition(f"### {title}\n\n")[2].partition("\n\n")[0]
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()[2:]]
        assert len(lines) == len(table)
        for (network, cells), line in zip(table.items(), lines, strict=True):
            assert network == (line[0] if line[1] == "-" else f"{line[0]}, distilled from {line[1]}")
            parameters, _, accuracy, seeds, *times = cells
            assert [parameters, *times, f"**{accuracy}**", seeds] == [line[2], *line[4:8]]


def test_its_table_has_costs_accuracy_seeds_and_times_of_every_network() -> None:
    for cells in (cells for table in tables().values() for cells in table.values()):
        assert len(cells) == 6
        assert all(re.match(r"\d", cell) for cell in cells)


def test_the_bundled_models_have_the_accuracy_that_it_states() -> None:
    text = README.read_text(encoding="utf-8")
    for name in ("cifar10-global-source", "cifar10-resnet32"):
        card = zoo.load(name).card
        accuracy = card.metrics["test_accuracy"]
        assert f"{accuracy:.2%}".replace("%", " %") in text
        assert any(accuracy == run.outcome.test_accuracy for run in runs_of(name))
    card = zoo.load("cifar10-global-source").card
    measured = [f"{card.parameters:,}", f"{card.macs / 1e6:.1f} M", f"{100 * card.metrics['test_accuracy']:.2f}"]
    assert row_of(DISTILLED)[:3] == measured


def runs_of(name: str) -> list[Run]:
    return [run for group in read_groups(ROOT / "results") if group.name == name for run in group.runs]


def test_its_claim_follows_from_its_table() -> None:
    (claim,) = re.findall(r"^\*\*(.+?)\*\*$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    parameters, _, accuracy, _, milliseconds, _ = row_of(DISTILLED)

    measured = f"{float(accuracy):.1f} % on CIFAR-10 with {parameters} parameters, in {float(milliseconds):.2f} ms"
    assert measured in " ".join(claim.split())


def span(values: list[float]) -> str:
    """Return the smallest and the largest value as text, or the one number that both round to."""
    return " to ".join(dict.fromkeys(f"{value:.1f}" for value in sorted(values)))


def test_its_comparison_follows_from_the_results() -> None:
    text = " ".join(README.read_text(encoding="utf-8").split())
    rows = [line for line in RESULTS.read_text(encoding="utf-8").splitlines() if "(`cifar10-global-no-pde`)" in line]
    ours, source = ([float(cell.split()[0]) for cell in row.split("|")[3:7]] for row in rows)
    assert "`cifar10-global-source`" in rows[1]

    error = float(rows[1].split("|")[4].split()[2])
    resnets = f"{span(source[2:])} above ResNets of the same speed"
    assert f"is {source[0]:.1f} points above the same network without PDE layers and {resnets}" in text
    assert f"is {source[1]:.1f} ± {error:.1f} (standard error) above the best control" in text
    assert f"these are {ours[0]:.1f}, {span(ours[2:])} and {ours[1]:.1f} points" in text

    times = [[float(cell) for cell in row_of(name)[4:]] for name in ("`cifar10-global`", "`cifar10-global-source`")]
    assert all(0.95 < other / paper < 1.05 for paper, other in zip(*times, strict=True))  # equally fast

    (resnet32,) = re.findall(r"^\| `cifar10-resnet32`.*", RESULTS.read_text(encoding="utf-8"), re.MULTILINE)
    slower = [float(cell) / time for cell, time in zip(resnet32.split("|")[5:7], times[1], strict=True)]
    assert f"{span(slower)} times the time" in text
