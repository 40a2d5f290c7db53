"""docs/your-own-images.md: every command of the tutorial does what it says, in order."""

from pathlib import Path

import pytest

from tests.documents import ROOT, code_blocks, console_examples, run_examples, serve

TUTORIAL = ROOT / "docs" / "your-own-images.md"
MEASURED = ROOT / "results" / "benchmarks" / "learning-curve.txt"


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path) -> None:
    (script,) = (text for language, text in code_blocks(TUTORIAL) if language == "python")
    (tmp_path / "make_photos.py").write_text(script)
    _, command = (text.split() for language, text in code_blocks(TUTORIAL) if language == "sh")
    assert command[:2] == ["pdeinfer", "serve"]
    examples = console_examples(TUTORIAL)
    requests = [example for example in examples if example[0].startswith("curl")]
    assert requests
    run_examples([example for example in examples if example not in requests], tmp_path)
    with serve(tmp_path, *command[2:]) as port:
        run_examples(requests, tmp_path, port)


def table(file: Path) -> list[list[str]]:
    """Return the cells of a file's only table, without the line below its head."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "---" not in line]


def test_its_table_has_the_figures_that_were_measured() -> None:
    assert len(table(MEASURED)) == 6
    assert table(TUTORIAL) == table(MEASURED)
