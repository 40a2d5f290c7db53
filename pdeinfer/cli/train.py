"""`pdeinfer train`: train a network; the same as `python -m training.run`."""

from collections.abc import Sequence

from pdeinfer.cli.siblings import import_sibling


def run(arguments: Sequence[str]) -> int:
    """Train, with the arguments of `python -m training.run`, and return the exit code."""
    code: int = import_sibling("training.run", extra="train", purpose="training").main(arguments)
    return code
