"""Measures a serialized ModelInferRequest before it is parsed.

A parsed message can take fifty times the memory of its bytes: two bytes may be a message, and one byte an integer of
eight. A request needs few fields, and only those that hold images are long.
"""

from collections.abc import Iterator
from typing import NamedTuple

from serving.errors import RequestError
from serving.grpc.messages import malformed

_MAX_FIELDS = 1024  # beside one for each image
_MAX_OTHER_BYTES = 64 * 2**10  # of all fields that hold neither messages nor images
_BYTES_PER_VALUE = 2  # of a pixel in uint_contents

_MODEL, _VERSION = 1, 2  # the numbers of the request's fields

# What the fields of each kind of message hold, by number: messages, images or pixel values; all others are "other".
_FIELDS: dict[str, dict[int, str]] = {
    "request": {4: "entry", 5: "input", 6: "output", 7: "images"},
    "input": {4: "entry", 5: "contents"},
    "output": {2: "entry"},
    "entry": {2: "parameter"},
    "parameter": {},
    "contents": {4: "values", 6: "images", 7: "images", 8: "images"},
}


class Measured(NamedTuple):
    """What a message asks for, and what is left to be limited.

    Attributes:
        model, version: as it names them; empty if it does not.
        value_bytes: the bytes of its uint_contents, which the model limits.
    """

    model: str
    version: str
    value_bytes: int


def measure(message: bytes, max_images: int) -> Measured:
    """Return what a message asks for.

    Args:
        max_images: the most images of one request.

    Raises:
        RequestError: `invalid_request`, if parsing it would take much more memory than its images need, whatever the
            model.
    """
    found = {"fields": 0, "images": 0, "values": 0, "other": 0}
    limits = {
        "fields": (_MAX_FIELDS + max_images, "fields"),
        "other": (_MAX_OTHER_BYTES, "bytes beside the images"),
    }
    names = {_MODEL: b"", _VERSION: b""}
    messages = [("request", memoryview(message))]
    while messages:
        kind, content = messages.pop()
        for number, value in _fields(content):
            found["fields"] += 1
            holds = _FIELDS[kind].get(number, "other")
            if holds in _FIELDS:
                messages.append((holds, value))
            else:
                found[holds] += len(value)
            for name, (limit, unit) in limits.items():
                if found[name] > limit:
                    raise RequestError("invalid_request", f"expected at most {limit} {unit}, got {found[name]} or more")
            if kind == "request" and number in names:
                names[number] = bytes(value)
    try:
        return Measured(names[_MODEL].decode(), names[_VERSION].decode(), found["values"])
    except UnicodeDecodeError:
        raise malformed() from None


def require_few_values(value_bytes: int, max_values: int) -> None:
    """Raise RequestError, `invalid_request`, if uint_contents have more bytes than the pixel values of one request."""
    limit = _BYTES_PER_VALUE * max_values
    if value_bytes > limit:
        raise RequestError("invalid_request", f"expected at most {limit} bytes of uint_contents, got {value_bytes}")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number of each field, and its bytes if it has a length, or none."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        length = 0
        match tag & 7:
            case 0:  # a number
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:  # bytes, text, a message or packed numbers
                length, position = _varint(message, position)
                position += length
            case 5:
                position += 4
            case _:
                raise malformed()
        if position > len(message):
            raise malformed()
        yield tag >> 3, message[position - length : position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number that starts at a position, and the position after it."""
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise malformed()
