"""Writes an ONNX file: converted by tf2onnx, described, and checked against the rules of `rules.py`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdeinfer.errors import ExportError, MissingDependencyError
from pdeinfer.export.rules import metadata
from pdeinfer.presets import Preset
from pdeinfer.version import __version__

OPSET = 18  # the newest that tf2onnx 1.17 writes


def write_onnx(function: Any, preset: Preset, path: Path, broken_rules: Callable[[Any, Preset], list[str]]) -> None:
    """Write a traced function (see `traced.trace`) as a self-contained ONNX file.

    Labels and preset are in the file's metadata, as JSON, under "labels" and "preset".

    Args:
        broken_rules: which rules of `rules.py` the result must keep.

    Raises:
        ExportError: tf2onnx cannot convert it, or the result breaks a rule.
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
            function, input_signature=function.input_signature, opset=OPSET, large_model=False
        )
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        raise ExportError(f"{preset.name}: tf2onnx cannot convert it: {error}") from error
    model.producer_name, model.producer_version = "pdeinfer", __version__
    model.graph.name = preset.name
    # tf2onnx names the free dimension differently on each side, and imports a domain that nothing uses.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in {"", *used}]:
        model.opset_import.remove(entry)
    onnx.helper.set_model_props(model, metadata(preset))
    broken = broken_rules(model, preset)
    if broken:
        raise ExportError(f"{preset.name}: {path.name} breaks the rules of a model package: {'; '.join(broken)}")
    path.write_bytes(model.SerializeToString())
