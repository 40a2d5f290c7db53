"""What the PDE layers of a network compute: to be exported, and as the reference for what was exported.

Arrays are named after their layer, "layer1", "layer2", ... in the order of the network, and are (N, H, W, C):

    layer1/start              H[0]
    layer1/source             f
    layer1/u, layer1/v        the velocity
    layer1/Dx, layer1/Dy      the diffusivity

Only what is needed is there: nothing that is absent or constant, no f that is H[0], no v that is u, no Dy that is Dx.
`pdeinfer.inspection.fields` computes the levels from it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pdeinfer.checks.parity import Array
from pdeinfer.inspection.fields import layer_fields


def pde_layers(classifier: Any) -> dict[str, Any]:
    """Return the PDE layers of a network by name, in the order of the network."""
    from pdeinfer.nn import GlobalLayer

    layers = [layer for layer in classifier.layers if isinstance(layer, GlobalLayer)]
    return {f"layer{number}": layer for number, layer in enumerate(layers, 1)}


def needed_fields(layer: Any, h: Any) -> dict[str, Any]:
    """Return the arrays of a PDE layer with the input h, by symbol, without those that are not needed."""
    pairs = {
        ("start", "source"): (layer.compute_start(h), None if layer.spec.source is None else h),
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


def original_fields(classifier: Any, images: Array) -> dict[str, Array]:
    """Return, computed by Keras alone, what the PDE layers make of images, uint8 (N, height, width, channels).

    Beside the arrays of the module's docstring: "layer1/levels", (N, K + 1, H, W, C), H[0] to H[K]; and
    "layer1/output", what the layer within the network returns.
    """
    import keras

    layers = pde_layers(classifier)
    both_of = keras.Model(classifier.input, {name: (layer.input, layer.output) for name, layer in layers.items()})
    arrays = {}
    with keras.device("cpu:0"):  # a GPU rounds otherwise
        for name, (h, output) in both_of(images, training=False).items():
            layer = layers[name]
            named = {
                **needed_fields(layer, h),
                "levels": keras.ops.stack(layer.compute_levels(h), axis=1),
                "output": output,
            }
            arrays.update({f"{name}/{symbol}": np.asarray(array) for symbol, array in named.items()})
    return arrays


def exported_fields(classifier: Any, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the same from the outputs of `fields.onnx`.

    The levels are computed as `pdeinfer.inspect` does it; "layer1/output" is what the layer's own normalisation makes
    of the last of them, `relu(BatchNorm(H[K]))`.
    """
    import keras

    arrays = dict(outputs)
    layers = pde_layers(classifier)
    spec = next(iter(layers.values())).spec  # one for all of them
    for fields in layer_fields(outputs, spec):
        arrays[f"{fields.name}/levels"] = np.moveaxis(fields.levels, 0, 1)
        normalized = layers[fields.name].norm(fields.levels[-1], training=False)
        arrays[f"{fields.name}/output"] = np.asarray(keras.ops.relu(normalized))
    return arrays
