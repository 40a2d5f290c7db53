"""Parses inference requests of the Open Inference Protocol (V2) into pixels and the requested response format.

The JSON object holds the pixels, flat or nested in row-major order, or says how many bytes of them follow it. In the
second form (the binary tensor data extension) the header Inference-Header-Content-Length gives the length of the JSON.
Null means absent. Fields and parameters that the protocol leaves open are ignored; all others are checked.
"""

import codecs
import json
import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from pdeinfer import InputSpec
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from serving.errors import RequestError
from serving.http.json_text import PARSED_WHOLE, PIECE_BYTES, cut
from serving.interface.tensors import (
    BYTES,
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
    shortened,
)

_MAX_SPACE = 1024  # between the first brackets of long lists
_MISSING_COMMA = re.compile(rb"\][^\],]|[^\[,]\[")
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")


def parse_request(
    body: bytes, header_length: str | None, spec: InputSpec, max_images: int, outputs: Sequence[str] = (OUTPUT_NAME,)
) -> InferenceRequest:
    """Parse the body of a request.

    Args:
        body: the inflated body.
        header_length: the header Inference-Header-Content-Length; None: absent.
        spec: the images that the model takes.
        max_images: the most images of one request.
        outputs: the names of the model's outputs.

    Raises:
        RequestError: `invalid_json` or `invalid_request`; `json_too_large` for more JSON beside the pixels than any
            request needs.
    """
    length = json_length(header_length, len(body))
    text, parts = body[:length], {}
    if length > PARSED_WHOLE:  # parsed JSON can take twenty times the memory of its text
        cut_json = cut(text, PARSED_WHOLE)
        text, parts = cut_json.text, cut_json.parts
    request = _parse_json(text)
    request_id = request.get("id")
    if request_id is not None and type(request_id) is not str:
        raise refusal("id", "a string", request_id)
    if request_id is not None:
        require_short_id(parts.get(request_id) or request_id.encode(errors="surrogatepass"))

    tensor = _tensors(request.get("inputs"), "inputs", (INPUT_NAME,))[INPUT_NAME]
    require_input(tensor.get("datatype"), tensor.get("shape"), spec, max_images)
    images = _images(tensor, memoryview(body)[length:], parts)

    binary = _flag(_parameters(request, "the request"), "binary_data_output", default=False)
    requested: tuple[RequestedOutput, ...] = (RequestedOutput(OUTPUT_NAME, binary),)
    if request.get("outputs") not in (None, []):
        tensors = _tensors(request["outputs"], "outputs", outputs)
        requested = tuple(_requested(name, tensor, binary) for name, tensor in tensors.items())
    return InferenceRequest(request_id, images, requested)


def _requested(name: str, tensor: dict[str, Any], binary: bool) -> RequestedOutput:
    parameters = _parameters(tensor, repr(name))
    binary = _flag(parameters, "binary_data", default=binary)
    return requested_output(name, binary, parameters.get("classification"))


def json_length(header_length: str | None, body_length: int) -> int:
    """Return how many bytes of a body are JSON.

    Args:
        header_length: the header Inference-Header-Content-Length; None: absent.

    Raises:
        RequestError: `invalid_request` for a header that is not such a number.
    """
    if header_length is None:
        return body_length
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) < 20):
        raise refusal("Inference-Header-Content-Length", "a number of bytes", header_length)
    if int(header_length) > body_length:
        raise refusal(
            "Inference-Header-Content-Length", f"at most the {body_length} bytes of the body", int(header_length)
        )
    return int(header_length)


def _parse_json(text: bytes) -> dict[str, Any]:
    request = _loads(text)
    if type(request) is not dict:
        raise refusal("the request", "a JSON object", request)
    return request


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text.removeprefix(codecs.BOM_UTF8).decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise RequestError("invalid_json", "the JSON of the request is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, integers of thousands of digits
        raise RequestError("invalid_json", f"the JSON of the request is not valid: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _tensors(tensors: object, field: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the tensors of a list of inputs or outputs by name: at least one, and each of `names` once at most."""
    known = " or ".join(map(repr, names))
    if (
        type(tensors) is not list
        or not 1 <= len(tensors) <= len(names)
        or any(type(tensor) is not dict for tensor in tensors)
    ):
        count = "one object" if len(names) == 1 else f"1 to {len(names)} objects"
        raise refusal(field, f"a list of {count}, for {known}", tensors)
    require_known([tensor.get("name") for tensor in tensors], field, names)
    return {tensor["name"]: tensor for tensor in tensors}


def _parameters(owner: dict[str, Any], what: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise refusal(f"the parameters of {what}", "a JSON object", parameters)
    require_no_shared_memory(parameters, what)
    return parameters


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise refusal(name, "true or false", value)
    return value


def _images(tensor: dict[str, Any], binary: memoryview, parts: dict[str, memoryview]) -> Images:
    datatype, shape, data = tensor["datatype"], tuple(tensor["shape"]), tensor.get("data")
    declared = _parameters(tensor, repr(INPUT_NAME)).get("binary_data_size")
    if declared is not None:
        if data is not None:
            raise RequestError("invalid_request", f"{INPUT_NAME!r} has both data and a binary_data_size: expected one")
        if type(declared) is not int or declared != len(binary):
            raise refusal("binary_data_size", f"{len(binary)}, the bytes after the JSON", declared)
        return read_binary(binary, datatype, shape)
    if binary:
        raise refusal("the body", "no bytes after the JSON without a binary_data_size", f"{len(binary)} bytes")
    if datatype == BYTES:
        raise RequestError(
            "invalid_request", f"{INPUT_NAME!r}: expected {BYTES} as binary data, with a binary_data_size"
        )
    long_array = parts.get(data) if isinstance(data, str) else None
    values = _values(data, shape) if long_array is None else _long_values(long_array, shape)
    return np.frombuffer(values, np.uint8).reshape(shape)


def _values(data: object, shape: tuple[int, ...]) -> bytes:
    """Return the numbers of flat or nested lists, in row-major order."""
    is_nested = type(data) is list and data and type(data[0]) is list
    values: list[Any] = [data]
    for size in shape if is_nested else (math.prod(shape),):
        for part in values:
            if type(part) is not list or len(part) != size:
                got = f"{len(part)} values" if type(part) is list else shortened(part)
                raise RequestError(
                    "invalid_request",
                    f"the data of {INPUT_NAME!r}: expected {math.prod(shape)} values in one list, or lists nested as "
                    f"the shape {list(shape)} says, got {got} in place of a list of {size}",
                )
        values = list(chain.from_iterable(values))
    return _to_bytes(values)


def _long_values(text: memoryview, shape: tuple[int, ...]) -> bytes:
    """Return the numbers of flat or nested lists that were cut out of the JSON, in row-major order.

    Brackets and commas are compared with those of the shape; then the numbers are parsed in pieces.
    """
    size = math.prod(shape)
    is_nested = bytes(text[1:_MAX_SPACE]).lstrip().startswith(b"[")
    expected = _structure(shape if is_nested else (size,))
    position, last, fits = 0, b"", True
    for start in range(0, len(text), PIECE_BYTES):
        compact = bytes(text[start : start + PIECE_BYTES]).translate(None, b" \t\r\n")
        found = compact.translate(None, b"-+.0123456789eE")
        fits = expected.startswith(found, position) and not _MISSING_COMMA.search(last + compact)
        if not fits:
            break
        position += len(found)
        last = compact[-1:] or last
    if not fits or position < len(expected):
        raise RequestError(
            "invalid_request",
            f"the data of {INPUT_NAME!r}: expected {size} integers from 0 to 255 in one list, or in lists nested as "
            f"the shape {list(shape)} says",
        )
    parts = []
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + PIECE_BYTES])
        if start + len(piece) < len(text):
            comma = piece.rfind(b",")
            if comma < 0:
                raise refusal(f"the data of {INPUT_NAME!r}", "integers from 0 to 255", "white space")
            piece = piece[:comma]
        start += len(piece) + 1
        parts.append(_to_bytes(_loads(b"[%b]" % piece.translate(_BRACKETS_TO_SPACES))))
    return b"".join(parts)


def _structure(shape: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of nested lists."""
    structure = b""
    for size in reversed(shape):
        structure = b"[" + structure + (b"," + structure) * (size - 1) + b"]"
    return structure


def _to_bytes(values: list[Any]) -> bytes:
    # A bool is an int to Python, and bytes() would take it.
    if set(map(type, values)) == {int}:
        try:
            return bytes(values)
        except ValueError:
            pass
    wrong = next((value for value in values if type(value) is not int or not 0 <= value <= 255), "nothing")
    raise refusal(f"the data of {INPUT_NAME!r}", "integers from 0 to 255", wrong)
