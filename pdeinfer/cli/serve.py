"""`pdeinfer serve`: classify images over HTTP."""

from collections.abc import Sequence

from pdeinfer.cli.siblings import run_sibling


def run(arguments: Sequence[str]) -> int:
    """Run the server, which parses the arguments itself, and return its exit code."""
    return run_sibling("serving.process.run", arguments, extra="serve")
