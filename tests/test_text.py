"""Text for people."""

import pytest

from pdeinfer.text import counted, describe_seconds


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2_000, "2,000 images")])
def test_counts(count: int, text: str) -> None:
    assert counted(count, "image") == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (65, "1:05"), (7_800, "2:10:00")])
def test_durations(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
