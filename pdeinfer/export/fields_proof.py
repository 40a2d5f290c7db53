"""Proves a package's `fields.onnx` equal to what the PDE layers of the Keras network compute."""

from typing import Any

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.checks.fields import compare_fields
from pdeinfer.checks.report import Report
from pdeinfer.export.rewrite.fields import needed_fields
from pdeinfer.inspection.inspector import run_stages
from pdeinfer.package.package import FIELDS_FILE, OUTPUT_NAME
from pdeinfer.runtime.session import Session, create_session


def prove_fields(name: str, classifier: Any, fields_file: bytes, images: Array) -> Report:
    """Compare a `fields.onnx` with the network on images.

    Args:
        name: the network's name in the report.
        classifier: the network.
        fields_file: the content of `fields.onnx`.
        images: uint8 (N, H, W, C).

    Raises:
        ParityError, ModelPackageError: the file lacks fields, or has others.
    """
    session = create_session(fields_file, "cpu", fused=False)  # as `pdeinfer.inspect` runs it
    is_cut = len(session.inputs) > 1

    def original(batch: Array) -> dict[str, Array]:
        fields = original_fields(classifier, batch)
        if not is_cut:  # a file of an earlier version
            del fields[OUTPUT_NAME]
        return fields

    return compare_fields(
        (name, original),
        (
            f"{FIELDS_FILE} on ONNX Runtime {session.version}",
            lambda batch: exported_fields(classifier, session, batch),
        ),
        images,
    )


def original_fields(classifier: Any, images: Array) -> dict[str, Array]:
    """Compute the arrays of the PDE layers with Keras, for images, uint8 (N, height, width, channels).

    In addition to the outputs of `rewrite.fields`: "layer1/levels", (N, K + 1, H, W, C), H[0] to H[K]; and
    "layer1/output", the output of the layer inside the network.
    """
    import keras

    layers = classifier.pde_layers()
    around = keras.Model(
        classifier.input,
        ({name: (layer.input, layer.output) for name, layer in layers.items()}, classifier.output),
    )
    with keras.device("cpu:0"):  # GPUs round differently
        values, logits = around(images, training=False)
        arrays = {OUTPUT_NAME: np.asarray(keras.ops.softmax(logits))}
        for name, (h, output) in values.items():
            layer = layers[name]
            named = {
                **needed_fields(layer, h),
                "levels": keras.ops.stack(layer.compute_levels(h), axis=1),
                "output": output,
            }
            arrays.update({f"{name}/{symbol}": np.asarray(array) for symbol, array in named.items()})
    return arrays


def exported_fields(classifier: Any, session: Session, images: Array) -> dict[str, Array]:
    """Return the same arrays from a session of `fields.onnx`.

    The levels are computed as `pdeinfer.inspect` does. "layer1/output" is `relu(BatchNorm(H[K]))` of the last level,
    with the layer's own normalisation.
    """
    import keras

    layers = classifier.pde_layers()
    arrays, inspected = run_stages(session, images, classifier.preset.pde)
    for fields in inspected:
        arrays[f"{fields.name}/levels"] = np.moveaxis(fields.levels, 0, 1)
        normalized = layers[fields.name].norm(fields.levels[-1], training=False)
        arrays[f"{fields.name}/output"] = np.asarray(keras.ops.relu(normalized))
    return arrays
