"""The rules that the ONNX files of a model package obey."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pdeinfer.errors import PresetError
from pdeinfer.export.rewrite.function import DOMAIN, NAME
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from pdeinfer.runtime.external_data import has_external_data
from pdeinfer.spec.presets import Preset

_FIELD = re.compile(r"layer[1-9]\d*/(start|source|u|v|Dx|Dy)", re.ASCII)
_LAST = re.compile(r"layer[1-9]\d*/last", re.ASCII)
_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


def broken_rules(model: Any, preset: Preset) -> list[str]:
    """Return the rules that an `onnx.ModelProto` breaks as the `model.onnx` of a preset; an empty list if none.

    - `onnx.checker` accepts it.
    - Its one input is `image`, uint8 (batch, height, width, channels); its one output is `probabilities`, float32
      (batch, classes). Only the batch size is free.
    - It uses only standard operators, and at most one function, `pdeinfer.GlobalLayer`, which it defines itself.
    - It has no control flow, and no data outside the file.
    - Its metadata describes the preset.
    """
    expected = [(OUTPUT_NAME, "FLOAT", ["batch", len(preset.labels)])]
    found = [_signature(value) for value in model.graph.output]
    broken = [] if found == expected else [f"outputs: expected {expected}, got {found}"]
    return broken + _broken_rules_of_any(model, preset, [_signature(value) for value in model.graph.input])


def broken_fields_rules(model: Any, preset: Preset) -> list[str]:
    """Return the rules that an `onnx.ModelProto` breaks as the `fields.onnx` of a preset; an empty list if none.

    The rules are those of `model.onnx`, except for the inputs and outputs, which are those of
    `pdeinfer.export.rewrite.fields`. All but the image and the probabilities are float32 (batch, height, width,
    channels).
    """
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


def metadata(preset: Preset) -> dict[str, str]:
    """Return the metadata of a preset's ONNX files: JSON by key."""
    return {"labels": json.dumps(preset.labels), "preset": json.dumps(preset.to_dict())}


def _is_map(signature: tuple[str, str, list[str | int]], names: re.Pattern[str]) -> bool:
    """Return whether a tensor has one of the names and is float32 (batch, height, width, channels)."""
    name, kind, shape = signature
    is_map = kind == "FLOAT" and len(shape) == 4 and shape[0] == "batch"
    return bool(names.fullmatch(name)) and is_map and all(isinstance(size, int) for size in shape[1:])


def _broken_rules_of_any(model: Any, preset: Preset, inputs: list[tuple[str, str, list[str | int]]]) -> list[str]:
    """Return the broken rules among those that hold for every ONNX file of a package.

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
        if not _is_same(key, properties.get(key), preset):
            broken.append(f"metadata: {key} must be {value}, not {properties.get(key)}")
    control_flow = {node.op_type for node in _nodes(model)} & _CONTROL_FLOW
    if control_flow:
        broken.append(f"control flow: {', '.join(sorted(control_flow))}")
    functions = [(function.domain, function.name) for function in model.functions]
    if functions not in ([], [(DOMAIN, NAME)]):
        broken.append(f"functions: expected {DOMAIN}.{NAME} at most, got {', '.join(map('.'.join, functions))}")
    operators = {(node.domain, node.op_type) for node in _nodes(model)}
    foreign = {operator for operator in operators - set(functions) if operator[0] not in ("", "ai.onnx")}
    if foreign:
        broken.append(f"operators that are not ONNX's own: {', '.join(map('.'.join, sorted(foreign)))}")
    if has_external_data(model.SerializeToString()):
        broken.append("data outside the file")
    return broken


def _is_same(key: str, text: str | None, preset: Preset) -> bool:
    """Return whether metadata describes the preset, in the form of this version or of an older one."""
    try:
        value = json.loads(text or "")
        return bool(Preset.from_dict(value) == preset if key == "preset" else value == list(preset.labels))
    except (ValueError, RecursionError, AttributeError, PresetError):
        return False


def _signature(value: Any) -> tuple[str, str, list[str | int]]:
    import onnx

    tensor = value.type.tensor_type
    shape = [dimension.dim_param or dimension.dim_value for dimension in tensor.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), shape


def _nodes(model: Any) -> Iterator[Any]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node
