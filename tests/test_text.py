"""Text for people."""

import math

import pytest

from pdeinfer.text import counted, describe_seconds, one_line, round_up


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2_000, "2,000 images")])
def test_counts(count: int, text: str) -> None:
    assert counted(count, "image") == text


@pytest.mark.parametrize(
    ("value", "bound"),
    [(0.471, 0.48), (0.1, 0.1), (1.0000001e-6, 1.1e-6), (9.91e-7, 1e-6), (0, 0), (1.0, 1.0), (math.inf, math.inf)],
)
def test_a_bound_is_rounded_up_to_two_digits(value: float, bound: float) -> None:
    assert round_up(value) == bound
    assert float(f"{round_up(value):.2g}") == float(f"{round_up(value):.1e}") == bound >= value


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (65, "1:05"), (7_800, "2:10:00")])
def test_durations(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [(OSError("a\nb\x1b[31m"), "a b\\x1b[31m"), (MemoryError(), "MemoryError"), (ValueError("\n"), "ValueError")],
)
def test_an_error_is_one_printable_line(error: Exception, text: str) -> None:
    assert one_line(error) == text
