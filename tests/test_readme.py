"""The README and the first tutorials do what they say, and the README's figures are those that were measured."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdeinfer.package import zoo
from tests.documents import ROOT, code_blocks, console_examples, run_examples, serve

README = ROOT / "README.md"
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


def test_the_readme_has_at_most_120_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


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


def test_its_table_has_the_figures_of_the_bundled_cards() -> None:
    text = README.read_text(encoding="utf-8")

    for name in ("cifar10-global", "cifar10-resnet32"):
        card = zoo.load(name).card
        accuracy = card.metrics["test_accuracy"]
        row = f"{card.parameters:,} | {card.macs / 1e6:.1f} M | {accuracy:.2%}".replace("%", " %")
        assert re.search(rf"^\| `{name}`.* \| {re.escape(row)} \|", text, re.MULTILINE)
        assert f"{accuracy:.1%}".replace("%", " %") in text.partition("| CIFAR-10 network")[0]


def test_its_table_has_the_times_that_were_measured() -> None:
    performance = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    row = r"### Batch 1, one thread.*?\| pdeinfer, fused operator +\| +([\d.]+) \([^|]+\| +([\d.]+) "
    resnet32, global_k1 = map(float, re.findall(row, performance, re.DOTALL)[0])

    text = README.read_text(encoding="utf-8")
    assert re.search(rf"^\| `cifar10-global`.* \| {global_k1:.2f} ms \|$", text, re.MULTILINE)
    assert re.search(rf"^\| `cifar10-resnet32`.* \| {resnet32:.2f} ms \|$", text, re.MULTILINE)


def test_its_claim_follows_from_its_table() -> None:
    ours, resnet32 = (zoo.load(name).card for name in ("cifar10-global", "cifar10-resnet32"))

    assert "a third of ResNet32's parameters, a fifth of its multiply-adds" in " ".join(README.read_text().split())
    assert ours.parameters / resnet32.parameters == pytest.approx(1 / 3, abs=0.02)
    assert ours.macs / resnet32.macs == pytest.approx(1 / 5, abs=0.02)
