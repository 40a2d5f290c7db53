"""Writes an ONNX file: converted by tf2onnx, described, and checked against the rules of `rules.py`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.errors import ExportError, MissingDependencyError
from pdeinfer.export.rules import metadata
from pdeinfer.spec.presets import Preset
from pdeinfer.version import __version__

OPSET = 18  # the newest that tf2onnx 1.17 writes


def convert(function: Any, preset: Preset, nchw_inputs: Sequence[str] = ()) -> Any:
    """Convert a traced function (see `traced.trace`) to an `onnx.ModelProto`.

    Labels and preset are in the model's metadata, as JSON, under "labels" and "preset".

    Args:
        nchw_inputs: the inputs that are (N, C, H, W) in the model, not (N, H, W, C) as in TensorFlow.

    Raises:
        ExportError: tf2onnx cannot convert it.
        MissingDependencyError: tf2onnx is not installed.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise MissingDependencyError(error.name or "tf2onnx", "train", "exporting to ONNX") from error
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        model, _ = tf2onnx.convert.from_function(
            function,
            input_signature=function.input_signature,
            opset=OPSET,
            large_model=False,
            inputs_as_nchw=list(nchw_inputs),
        )
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        raise ExportError(f"{preset.name}: tf2onnx cannot convert it: {error}") from error
    model.producer_name, model.producer_version = "pdeinfer", __version__
    model.graph.name = preset.name
    # tf2onnx names the free dimension differently on each side, and imports a domain that nothing uses.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _keep_batch(model.graph)
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in {"", *used}]:
        model.opset_import.remove(entry)
    onnx.helper.set_model_props(model, metadata(preset))
    return model


def _keep_batch(graph: Any) -> None:
    """Have every Reshape copy the batch size, 0, where tf2onnx has it computed, -1, and its name is lost."""
    from onnx import numpy_helper

    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            first, *rest = numpy_helper.to_array(tensor)
            if first == -1:
                tensor.CopyFrom(numpy_helper.from_array(np.array([0, *rest], np.int64), tensor.name))


def write(model: Any, preset: Preset, path: Path, broken_rules: Callable[[Any, Preset], list[str]]) -> None:
    """Write an `onnx.ModelProto` as a self-contained file.

    Args:
        broken_rules: which rules of `rules.py` it must keep.

    Raises:
        ExportError: it breaks one.
    """
    broken = broken_rules(model, preset)
    if broken:
        raise ExportError(f"{preset.name}: {path.name} breaks the rules of a model package: {'; '.join(broken)}")
    path.write_bytes(model.SerializeToString())
