"""The inputs and outputs of `fields.onnx`, the network cut at its PDE layers, for `pdeinfer inspect`.

The file computes what a PDE layer's steps start from, and goes on from their result. The steps themselves are not in
it: `pdeinfer.inspection` computes them, and may change them. Beside the image, it takes the last level of every layer:

    layer1/last               H[K]

Its outputs are named after their layer, "layer1", "layer2", ... in the order of the network:

    layer1/start              H[0]
    layer1/source             f
    layer1/u, layer1/v        velocity
    layer1/Dx, layer1/Dy      diffusivity
    probabilities

All arrays of a layer have the shape (N, H, W, C). One that is absent, constant or equal to an earlier one is left out:
no f that is H[0], no v that is u, no Dy that is Dx. The fields of layer2 depend on `layer1/last` alone, and the
probabilities on that of the last layer.

Files of earlier versions hold the steps too: they take the image alone, and have no probabilities.
"""

from typing import Any


def last_level(layer: str) -> str:
    """Return the name of the input that takes a PDE layer's last level."""
    return f"{layer}/last"


def needed_fields(layer: Any, h: Any) -> dict[str, Any]:
    """Return the arrays of a PDE layer with the input h that `fields.onnx` holds, by symbol."""
    pairs = {
        ("start", "source"): (layer.compute_start(h), None if layer.spec.source is None else layer.compute_source(h)),
        ("u", "v"): layer.compute_velocity(h) or (None, None),
        ("Dx", "Dy"): layer.compute_diffusivity(h) or (None, None),
    }
    fields = {}
    for (first_symbol, second_symbol), (first, second) in pairs.items():
        if first is not None and not isinstance(first, float | int):
            fields[first_symbol] = first
            if second is not None and second is not first:
                fields[second_symbol] = second
    return fields
