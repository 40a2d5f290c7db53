"""docs/fields.md: its commands do what it says, and its picture is what they draw."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image

from tests.documents import ROOT, console_examples, run_examples

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
