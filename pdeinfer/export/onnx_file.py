"""Converts a traced function with tf2onnx, and reads and writes ONNX files that obey the rules of a package."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfer.errors import ExportError, MissingDependencyError, ModelPackageError
from pdeinfer.graph.rules import check_graph
from pdeinfer.package.metadata import metadata
from pdeinfer.spec.presets import Preset
from pdeinfer.version import __version__

OPSET = 18  # the newest that tf2onnx 1.17 writes


def convert(function: Any, preset: Preset, nchw_inputs: Sequence[str] = ()) -> Any:
    """Convert a traced function (see `rewrite.traced`) to an `onnx.ModelProto`.

    The model's metadata holds the labels and the preset as JSON, under "labels" and "preset".

    Args:
        nchw_inputs: the inputs that become (N, C, H, W) in the model; in TensorFlow they are (N, H, W, C).

    Raises:
        ExportError: tf2onnx cannot convert the function.
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
    # tf2onnx gives the batch dimension different names at input and output, and imports a domain that nothing uses.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _keep_batch(model.graph)
    used = {node.domain for node in model.graph.node}
    for entry in [entry for entry in model.opset_import if entry.domain not in {"", *used}]:
        model.opset_import.remove(entry)
    onnx.helper.set_model_props(model, metadata(preset))
    return model


def parse(content: bytes, name: str) -> Any:
    """Return the `onnx.ModelProto` in the content of an ONNX file, after checking its graph.

    For a graph that breaks the rules of `pdeinfer.graph`, such as one of nested functions, onnx may take hours.

    Raises:
        ModelPackageError: it is not an ONNX file, or breaks a rule; the message begins with `name`.
    """
    import onnx

    try:
        check_graph(content)
        return onnx.load_model_from_string(content)
    except ModelPackageError as error:
        raise ModelPackageError(f"{name}: {error}") from error
    except Exception as error:  # from protobuf, which pdeinfer imports nowhere else
        raise ModelPackageError(f"{name}: not an ONNX file: {error}") from error


def require_onnx(purpose: str) -> None:
    """Raise MissingDependencyError, which says that `purpose` needs it, if onnx is not installed."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx", "train", purpose) from error


def _keep_batch(graph: Any) -> None:
    """Let every Reshape copy the batch size (0). tf2onnx has it inferred (-1), which loses its name."""
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
        broken_rules: returns the rules in `rules` that the model breaks.

    Raises:
        ExportError: the model breaks a rule.
    """
    broken = broken_rules(model, preset)
    if broken:
        raise ExportError(f"{preset.name}: {path.name} breaks the rules of a model package: {'; '.join(broken)}")
    path.write_bytes(model.SerializeToString())
