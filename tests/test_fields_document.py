"""docs/fields.md: its commands do what it says there, and its picture is what they draw."""

import doctest
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.documents import ROOT, broken_links, code_blocks, console_examples, run_examples

DOCUMENT = ROOT / "docs" / "fields.md"
PICTURE = "seven-digits-pde-layer1.png"


def test_its_command_draws_its_picture(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    run_examples(console_examples(DOCUMENT), tmp_path)
    committed = DOCUMENT.parent / "fields" / PICTURE
    with PIL.Image.open(committed) as shown, PIL.Image.open(tmp_path / "pictures" / PICTURE) as drawn:
        assert drawn.size == shown.size
        difference = np.abs(np.asarray(shown.convert("RGB"), int) - np.asarray(drawn.convert("RGB"), int))
        assert difference.mean() < 1  # of 255: rounding may change the last digit that is written
    assert committed.stat().st_size < 200_000


def test_its_python_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (text,) = (text for language, text in code_blocks(DOCUMENT) if language == "pycon")
    report: list[str] = []
    example = doctest.DocTestParser().get_doctest(text, {}, "fields", DOCUMENT.name, 0)
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_its_links_lead_to_files_of_the_repository() -> None:
    assert broken_links(DOCUMENT) == []
