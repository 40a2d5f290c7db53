"""The rules that the ONNX files of a model package obey."""

import re
from typing import Any

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph.rules import check_graph
from pdeinfer.package.metadata import describes, metadata
from pdeinfer.package.package import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME
from pdeinfer.spec.presets import Preset

_FIELD = re.compile(r"layer[1-9]\d*/(start|source|u|v|Dx|Dy)", re.ASCII)
_LAST = re.compile(r"layer[1-9]\d*/last", re.ASCII)


def broken_rules(model: Any, preset: Preset) -> list[str]:
    """Return the rules that an `onnx.ModelProto` breaks as the `model.onnx` of a preset; an empty list if none.

    - Its graph obeys the rules of `pdeinfer.graph`, which every file is checked for when it is loaded. If it does not,
      nothing else is looked at.
    - `onnx.checker` accepts it.
    - Its one input is `image`, uint8 (batch, height, width, channels); its outputs are `probabilities`, float32
      (batch, classes), and `features`, float32 (batch, features), which earlier versions did not write. Only the batch
      size is free.
    - Its metadata describes the preset.
    """
    unbounded = _broken_graph_rules(model)
    if unbounded:
        return unbounded
    expected = [(OUTPUT_NAME, "FLOAT", ["batch", len(preset.labels)])]
    found = [_signature(value) for value in model.graph.output]
    is_right = found[:1] == expected and all(_are_features(value) for value in found[1:]) and len(found) <= 2
    broken = [] if is_right else [f"outputs: expected {expected} and {FEATURES_NAME}, got {found}"]
    return broken + _broken_rules_of_any(model, preset, [_signature(value) for value in model.graph.input])


def broken_fields_rules(model: Any, preset: Preset) -> list[str]:
    """Return the rules that an `onnx.ModelProto` breaks as the `fields.onnx` of a preset; an empty list if none.

    The rules are those of `model.onnx`, except for the inputs and outputs, which are those of
    `pdeinfer.export.rewrite.fields`. All but the image and the probabilities are float32 (batch, height, width,
    channels).
    """
    unbounded = _broken_graph_rules(model)
    if unbounded:
        return unbounded
    inputs, outputs = ([_signature(value) for value in values] for values in (model.graph.input, model.graph.output))
    broken = _broken_rules_of_any(model, preset, inputs[:1])
    broken += [
        f"inputs: expected the last levels of layers such as ('layer1/last', 'FLOAT', "
        f"['batch', height, width, channels]), got {value}"
        for value in inputs[1:]
        if not _is_map(value, _LAST)
    ]
    answer = (OUTPUT_NAME, "FLOAT", ["batch", len(preset.labels)])
    if len(inputs) > 1 and answer not in outputs:
        broken.append(f"outputs: expected {answer}, got {[name for name, *_ in outputs]}")
    broken += [
        f"outputs: expected fields such as ('layer1/u', 'FLOAT', ['batch', height, width, channels]), got {value}"
        for value in outputs
        if value != answer and not _is_map(value, _FIELD)
    ]
    return broken


def _are_features(signature: tuple[str, str, list[str | int]]) -> bool:
    name, kind, shape = signature
    is_row = len(shape) == 2 and shape[0] == "batch" and isinstance(shape[1], int)
    return name == FEATURES_NAME and kind == "FLOAT" and is_row


def _is_map(signature: tuple[str, str, list[str | int]], names: re.Pattern[str]) -> bool:
    """Return whether a tensor has one of the names and is float32 (batch, height, width, channels)."""
    name, kind, shape = signature
    is_map = kind == "FLOAT" and len(shape) == 4 and shape[0] == "batch"
    return bool(names.fullmatch(name)) and is_map and all(isinstance(size, int) for size in shape[1:])


def _broken_graph_rules(model: Any) -> list[str]:
    """Return what `check_graph` finds. It comes first: it bounds the time and memory of `onnx.checker`."""
    try:
        check_graph(model.SerializeToString())
    except ModelPackageError as error:
        return [str(error)]
    return []


def _broken_rules_of_any(model: Any, preset: Preset, inputs: list[tuple[str, str, list[str | int]]]) -> list[str]:
    """Return the broken rules among those that hold for every ONNX file of a package, except those of its graph.

    Args:
        inputs: must be the image alone.
    """
    import onnx

    broken = []
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        broken.append(f"onnx.checker: {str(error).strip().splitlines()[0]}")
    spec = preset.input
    expected = [(INPUT_NAME, "UINT8", ["batch", spec.height, spec.width, spec.channels])]
    if inputs != expected:
        broken.append(f"inputs: expected {expected}, got {inputs}")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    for key, value in metadata(preset).items():
        if not describes(key, properties.get(key, ""), preset):
            broken.append(f"metadata: {key} must be {value}, not {properties.get(key)}")
    return broken


def _signature(value: Any) -> tuple[str, str, list[str | int]]:
    import onnx

    tensor = value.type.tensor_type
    shape = [dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), shape
