"""Prints errors in one form for all commands."""

import sys


def print_error(error: Exception) -> None:
    """Print an error on stderr, on one line."""
    print("pdeinfer: error:", " ".join(str(error).splitlines()), file=sys.stderr)
