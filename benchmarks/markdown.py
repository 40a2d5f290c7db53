"""Formats results as Markdown that is also readable in a terminal."""

from collections.abc import Sequence

from benchmarks.machine import describe
from benchmarks.timing import Timing


def machine(*peers: str) -> str:
    """Return a code block that describes the machine; see `machine.describe`."""
    return "\n".join(["```text", *describe(*peers), "```", ""])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with its first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        header,
        ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])],
        *rows,
    ]
    return "\n".join(f"| {' | '.join(_aligned(line, widths))} |" for line in lines) + "\n"


def milliseconds(timing: Timing) -> str:
    """Return median and quartiles in milliseconds: "1.234 (1.000-2.000)"."""
    median, lower, upper = (
        f"{1000 * value:.{3 if timing.median < 0.01 else 1}f}"
        for value in (timing.median, timing.lower_quartile, timing.upper_quartile)
    )
    return f"{median} ({lower}-{upper})"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = line
    return [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
