"""docs/reliability.md: the counts that it gives."""

import re

from tests.documents import ROOT
from tests.serving.hostile_images import corpus

DOCUMENT = ROOT / "docs" / "reliability.md"


def test_it_counts_the_hostile_images() -> None:
    counts = re.findall(r"(\d+) files, each with the outcome that it must have", DOCUMENT.read_text())

    assert counts == [str(len(corpus()))]
