"""`pdeinfer inspect`: draw what a model's PDE layers compute for an image."""

import argparse
import sys
from pathlib import Path

from pdeinfer.errors import PdeinferError
from pdeinfer.images.convert import to_array
from pdeinfer.inspection.drawing import draw_layer
from pdeinfer.inspection.inspector import inspect
from pdeinfer.package import zoo


def run(options: argparse.Namespace) -> int:
    """Print a summary of each PDE layer, and write its picture."""
    package = zoo.load(options.model)
    preset = package.card.preset
    image = to_array(options.image, preset.input)
    for layer in inspect(image, package):
        print(f"{preset.name}, {layer.name}: " + "\n  ".join(layer.summary))
        picture = options.output / f"{Path(options.image).stem}-{preset.name}-{layer.name}.png"
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            draw_layer(layer, image, preset.name).save(picture, optimize=True)
        except OSError as error:
            raise PdeinferError(f"{picture} cannot be written: {error.strerror}") from error
        print(f"  {picture}", flush=True)
        if layer.instability:
            severity = "warning" if layer.spec.num_steps > 1 else "note"
            print(f"pdeinfer: {severity}: {layer.name}: {layer.instability}", file=sys.stderr)
    return 0
