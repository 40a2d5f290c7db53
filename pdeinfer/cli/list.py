"""`pdeinfer list`: list the bundled models."""

import argparse
import sys

from pdeinfer.package import zoo
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.runtime.kernel import LIBRARY

_ROW = "{:<23}{:>8}{:>9}{:>12}{:>13}{:>15}{:>10}"


def run(_: argparse.Namespace) -> int:
    """Print a table of the bundled models; say on stderr if the fused operator is missing."""
    names = zoo.names()
    print(_ROW.format("name", "input", "classes", "parameters", "MACs", "test accuracy", "size"))
    for name in names:
        card = zoo.load(name).card
        spec = card.preset.input
        accuracy = card.test_accuracy()
        row = _ROW.format(
            name,
            f"{spec.height}x{spec.width}x{spec.channels}",
            len(card.preset.labels),
            f"{card.parameters:,}",
            f"{card.macs:,}",
            "" if accuracy is None else f"{accuracy:.2%}",
            f"{card.files[ONNX_FILE].bytes / 1024:,.0f} KiB",
        )
        print(row + ("  default" if name == zoo.DEFAULT_MODEL else ""))
    if not LIBRARY.exists():
        print(
            "pdeinfer: note: built without the fused operator: PDE layers give the same results, more slowly "
            "(`pip install --verbose` says why)",
            file=sys.stderr,
        )
    return 0
