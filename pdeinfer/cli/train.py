"""`pdeinfer train`: train a network; the same as `python -m training.run`."""

from collections.abc import Sequence

from pdeinfer.cli.siblings import run_sibling


def run(arguments: Sequence[str]) -> int:
    """Train, with the arguments of `python -m training.run`, and return the exit code."""
    return run_sibling("training.run", arguments, extra="train")
