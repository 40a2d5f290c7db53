"""`pdeinfer serve`: classify images over HTTP."""

from collections.abc import Sequence

from pdeinfer.cli.siblings import import_sibling


def run(arguments: Sequence[str]) -> int:
    """Run the server, which parses the arguments itself, and return its exit code."""
    code: int = import_sibling("serving.process.run", extra="serve", purpose="serving").main(arguments)
    return code
