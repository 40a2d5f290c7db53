"""Detects tensors whose values are stored outside an ONNX file, without the onnx package.

ONNX Runtime would read them from any path that its version accepts, and some paths mean a memory address. Files in a
model package never have such tensors, so pdeinfer rejects a file that has one before ONNX Runtime opens it.
"""

from collections.abc import Iterator

# The messages of onnx.proto that can contain a tensor: {message: {field number: message of that field}}.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse_tensor",
        23: "sparse_tensor",
    },
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor; location 0 means inside the file


def has_external_data(model: bytes) -> bool:
    """Return whether any tensor of a serialized ModelProto has its values in another file.

    Raises:
        ValueError: `model` is not a protocol buffer.
    """
    messages = [("model", 0, len(model))]
    while messages:
        kind, start, end = messages.pop()
        for number, value, content in _fields(model, start, end):
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                return True
            if content is not None and number in _MESSAGES[kind]:
                messages.append((_MESSAGES[kind][number], *content))
    return False


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    """Yield each field of a message: its number, its varint (or 0), and the range of its content (or None)."""
    while position < end:
        key, position = _varint(data, position, end)
        value, content = 0, None
        match key & 7:
            case 0:
                value, position = _varint(data, position, end)
            case 1:
                position += 8
            case 2:
                size, position = _varint(data, position, end)
                content = (position, position + size)
                position += size
            case 5:
                position += 4
            case wire_type:
                raise ValueError(f"unknown wire type {wire_type}")
        if position > end:
            raise ValueError("a field is longer than its message")
        yield (key & 0xFFFFFFFF) >> 3, value, content  # parsers ignore the bits of a key above 32


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the varint at `position`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a varint is incomplete")
