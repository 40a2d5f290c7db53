"""Reads inference requests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pdeinfer import InputSpec
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from serving.errors import RequestError
from serving.interface.tensors import (
    BYTES,
    PIXELS,
    Images,
    InferenceRequest,
    RequestedOutput,
    read_binary,
    refusal,
    requested_output,
    require_input,
    require_known,
    require_no_shared_memory,
    require_short_id,
)

_CONTENTS = {PIXELS: "uint_contents", BYTES: "bytes_contents"}


def read_request(request: Any, spec: InputSpec, max_images: int, outputs: Sequence[str]) -> InferenceRequest:
    """Return what a ModelInferRequest asks for. Outputs are binary if the input is.

    Args:
        spec: the images that the model takes.
        max_images: the most images of one request.
        outputs: the names of the model's outputs.

    Raises:
        RequestError: `invalid_request`.
    """
    require_short_id(request.id.encode())
    require_known([tensor.name for tensor in request.inputs], "inputs", (INPUT_NAME,))
    if not request.inputs:
        raise refusal("inputs", f"one, {INPUT_NAME!r}", [])
    (tensor,) = request.inputs
    for each in (tensor, *request.outputs):
        require_no_shared_memory(each.parameters, repr(each.name))
    require_input(tensor.datatype, list(tensor.shape), spec, max_images)
    is_binary = bool(request.raw_input_contents)
    images = _binary(request) if is_binary else _typed(tensor)
    require_known([output.name for output in request.outputs], "outputs", outputs)
    requested = tuple(
        requested_output(output.name, is_binary, _value(output.parameters, "classification"))
        for output in request.outputs
    )
    return InferenceRequest(request.id, images, requested or (RequestedOutput(OUTPUT_NAME, is_binary),))


def _binary(request: Any) -> Images:
    (tensor,) = request.inputs
    if tensor.contents.ListFields():
        raise RequestError("invalid_request", f"{INPUT_NAME!r} has both contents and raw_input_contents: expected one")
    if len(request.raw_input_contents) != 1:
        raise refusal("raw_input_contents", "one, of the one input", f"{len(request.raw_input_contents)}")
    return read_binary(request.raw_input_contents[0], tensor.datatype, tuple(tensor.shape))


def _typed(tensor: Any) -> Images:
    expected = _CONTENTS[tensor.datatype]
    for field, _ in tensor.contents.ListFields():
        if field.name != expected:
            raise refusal(f"the contents of {INPUT_NAME!r}", expected, field.name)
    values, count = getattr(tensor.contents, expected), math.prod(tensor.shape)
    if len(values) != count:
        raise refusal(f"the {expected} of {INPUT_NAME!r}", f"{count} values", f"{len(values)} values")
    if tensor.datatype == BYTES:
        return list(values)
    try:
        return np.frombuffer(bytes(values), np.uint8).reshape(tuple(tensor.shape))
    except ValueError:
        wrong = next(value for value in values if value > 255)
        raise refusal(f"the {expected} of {INPUT_NAME!r}", "integers from 0 to 255", wrong) from None


def _value(parameters: Mapping[str, Any], name: str) -> object:
    """Return the value of a parameter; None if it is absent."""
    if name not in parameters:
        return None
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)
