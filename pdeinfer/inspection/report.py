"""Writes an inspection as one HTML file that needs nothing else, with the view of the server's page."""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from pdeinfer.inline_html import fill, source
from pdeinfer.inspection.fields import LayerFields
from pdeinfer.inspection.values import array_values, layer_values, spec_values
from pdeinfer.package.package import ModelPackage
from pdeinfer.predictor import Predictor
from pdeinfer.text import valid
from pdeinfer.version import __version__

# Each after those that it imports.
_MODULES = (
    "dom.js",
    "maps.js",
    "answer.js",
    "equation.js",
    "flow.js",
    "quantities.js",
    "stage.js",
    "controls.js",
    "view.js",
    "report.js",
)
_IMPORT = re.compile(r'^import \{[^}]*\} from "[^"]*";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def report_html(name: str, pixels: NDArray[np.uint8], layers: Sequence[LayerFields], package: ModelPackage) -> str:
    """Return an HTML file on the PDE layers of a model, and its answer, for one image.

    The file's own policy forbids it every connection, and every script and style but its own.

    Args:
        name: the image's, for the title.
        pixels: the image in the network's shape, uint8 (H, W, C).
        layers: what `pdeinfer.inspect` returned for it.
        package: the model.
    """
    view = files("pdeinfer") / "inspection" / "view"
    text = {file: (view / file).read_text(encoding="utf-8") for file in (*_MODULES, "view.css", "report.html")}
    script = "".join(_EXPORT.sub("", _IMPORT.sub("", text[module])) for module in _MODULES)
    style = text["view.css"]
    policy = f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; base-uri 'none'"
    parts = {
        "policy": policy,
        "title": html.escape(valid(f"{package.card.preset.name} on {name}")),
        "version": __version__,
        "style": style,
        "script": script,
        "data": json.dumps(_content(pixels, layers, package)).replace("<", "\\u003c"),
    }
    return fill(text["report.html"], parts)


def _content(pixels: NDArray[np.uint8], layers: Sequence[LayerFields], package: ModelPackage) -> dict[str, object]:
    with Predictor(package, device="cpu") as predictor:
        top = predictor.predict(pixels, top_k=len(package.card.preset.labels)).to_dict()["top"]
    return {
        "model": package.card.preset.name,
        "top": top,
        "pixels": array_values(pixels),
        "values": spec_values(layers[0].spec),
        "layers": [layer_values(layer, has_arrays=True) for layer in layers],
    }
