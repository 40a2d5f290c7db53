"""docs/page.md: its commands do what it says, and its pictures are small."""

import shutil
from pathlib import Path

from tests.documents import ROOT, console_examples, run_examples, serve

DOCUMENT = ROOT / "docs" / "page.md"


def test_its_commands(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    examples = console_examples(DOCUMENT)
    assert len(examples) == 2
    with serve(tmp_path, "digits-pde") as port:
        run_examples(examples, tmp_path, port)
    assert (tmp_path / "seven.html").stat().st_size < 250_000


def test_its_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (DOCUMENT.parent / "page").iterdir()}
    assert sizes.keys() == {"page.webp", "equation.webp", "evolving.webp", "phone-dark.webp"}
    assert max(sizes.values()) < 200_000
