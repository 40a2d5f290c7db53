"""Files that are whole or not there."""

from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path`, then rename it: `path` is either what it was or the whole new file."""
    partial = path.with_name(f"partial-{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
