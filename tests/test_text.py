"""Text for people."""

import pytest

from pdeinfer.text import counted, describe_seconds, one_line


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2_000, "2,000 images")])
def test_counts(count: int, text: str) -> None:
    assert counted(count, "image") == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (65, "1:05"), (7_800, "2:10:00")])
def test_durations(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [(OSError("a\nb\x1b[31m"), "a b\\x1b[31m"), (MemoryError(), "MemoryError"), (ValueError("\n"), "ValueError")],
)
def test_an_error_is_one_printable_line(error: Exception, text: str) -> None:
    assert one_line(error) == text
