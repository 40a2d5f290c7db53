"""`pdeinfer inspect`: show what a model's PDE layers compute for an image."""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from pdeinfer.errors import PdeinferError
from pdeinfer.files import is_same_file, replace_file
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.inspection.drawing import draw_layer
from pdeinfer.inspection.inspector import inspect
from pdeinfer.inspection.report import report_html
from pdeinfer.package import zoo
from pdeinfer.text import printable


@np.errstate(over="ignore", invalid="ignore")  # the values of an unstable network may have no bound
def run(options: argparse.Namespace) -> int:
    """Print a summary of each PDE layer; write its picture, or all layers as one HTML file."""
    if options.html is not None and is_same_file(options.image, options.html):
        raise PdeinferError(f"expected --html to name another file than the image, got {options.html}")
    package = zoo.load(options.model)
    preset = package.card.preset
    with IsolatedDecoders() as decoders:
        image = decoders.to_array_where_needed(options.image, preset.input)
    layers = inspect(image, package)
    for layer in layers:
        print(f"{preset.name}, {layer.name}: " + "\n  ".join(layer.summary))
        if options.html is None:
            path = options.output / f"{Path(options.image).stem}-{preset.name}-{layer.name}.png"
            options.output.mkdir(parents=True, exist_ok=True)
            replace_file(path, partial(draw_layer(layer, image, preset.name).save, optimize=True))
            print(f"  {printable(str(path))}", flush=True)
        if layer.instability:
            severity = "warning" if layer.spec.num_steps > 1 else "note"
            print(f"pdeinfer: {severity}: {layer.name}: {layer.instability}", file=sys.stderr)
    if options.html is not None:
        content = report_html(Path(options.image).name, image, layers, package)
        options.html.parent.mkdir(parents=True, exist_ok=True)
        replace_file(options.html, lambda path: path.write_text(content, encoding="utf-8"))
        print(printable(str(options.html)))
    return 0
