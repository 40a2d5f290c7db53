"""Reads the structure of an ONNX file without the onnx package, in bounded time, and copies no weights.

It refuses what files of model packages never hold and what ONNX Runtime would follow anywhere: subgraphs, sparse
tensors, training graphs, and tensors whose values are outside the file. ONNX Runtime would read the latter from any
path that its version accepts, and some paths mean a memory address.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from pdeinfer.errors import ModelPackageError

# A field's value: a varint, four or eight bytes, or the range of the content of a string or message.
Span: TypeAlias = tuple[int, int]
Message: TypeAlias = dict[int, list[int | bytes | Span]]
Attribute: TypeAlias = "int | float | bytes | tuple[int, ...] | tuple[float, ...] | Tensor"

MAX_NODES = 20_000
MAX_RANK = 8
_MAX_FIELDS = 500_000
_MAX_VALUES = 64  # a tensor's integers are read up to this number: shapes, axes and bounds have fewer

_INT32, _INT64 = 6, 7
_INTEGERS = {_INT32: "<i4", _INT64: "<i8"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in the file: its name, shape and ONNX data type; `values`, if it holds a few integers, flat."""

    name: str
    shape: tuple[int, ...]
    data_type: int
    values: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A call of an operator or a function.

    Attributes:
        references: names of attributes of the function around it, by the attributes that take their values.
    """

    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the file defines; `defaults` are values of attributes."""

    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: dict[str, Attribute]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of an ONNX file.

    Attributes:
        inputs: names and shapes, with None for a free dimension.
        versions: the operator sets that the file imports, as domains and versions.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    initializers: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    functions: tuple[Function, ...]
    versions: frozenset[tuple[str, int]]


def read_graph(model: bytes) -> Graph:
    """Return the graph and the functions of an ONNX file.

    Raises:
        ModelPackageError: the bytes are not an ONNX file, or they hold too much or what the module refuses.
    """
    return _Reader(model).graph()


def read_metadata(model: bytes) -> dict[str, str]:
    """Return the metadata of an ONNX file: text by key.

    Raises:
        ModelPackageError: the bytes are not an ONNX file.
    """
    reader = _Reader(model)
    entries = map(reader.message, reader.message((0, len(model))).get(14, []))
    return {reader.text(entry, 1): reader.text(entry, 2) for entry in entries}


class _Reader:
    """Reads messages of onnx.proto by the numbers of their fields, up to a total number of fields."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._values = 0
        # By the type of an attribute: the number of the field with its value, and what reads it.
        self._kinds: dict[int, tuple[int, Callable[[Message, int], Attribute]]] = {
            1: (2, lambda message, number: (*self._floats(message, number), 0.0)[0]),
            2: (3, lambda message, number: _signed(_integer(message, number))),
            3: (4, self._bytes),
            4: (5, lambda message, number: self._tensor(_one(message, number))),
            6: (7, self._floats),
            7: (8, self._integers),
            8: (9, lambda *_: ()),
        }

    def graph(self) -> Graph:
        """Return the graph and the functions of the file."""
        model = self.message((0, len(self._data)))
        graph = self.message(_one(model, 7))
        if 20 in model or 15 in graph:
            raise ModelPackageError("the model has a training graph or sparse tensors")
        return Graph(
            inputs=dict(map(self._input, graph.get(11, []))),
            outputs=tuple(self.text(self.message(value), 1) for value in graph.get(12, [])),
            initializers=tuple(map(self._tensor, graph.get(5, []))),
            nodes=self._nodes(graph.get(1, [])),
            functions=tuple(self._function(self.message(value)) for value in model.get(25, [])),
            versions=frozenset(
                (self.text(entry, 1), _integer(entry, 2)) for entry in map(self.message, model.get(8, []))
            ),
        )

    def message(self, span: object) -> Message:
        """Return the values of every field of a message by its number."""
        if not isinstance(span, tuple):
            raise ModelPackageError("the model is not an ONNX file: expected a message, got a number")
        data, (position, end) = self._data, span
        found: Message = {}
        while position < end:
            key, position = _varint(data, position, end)
            value: int | bytes | Span
            match key & 7:
                case 0:
                    value, position = _varint(data, position, end)
                case 2:
                    size, position = _varint(data, position, end)
                    value = (position, position + size)
                    position += size
                case 1 | 5 as wire_type:
                    size = 8 if wire_type == 1 else 4
                    value = data[position : position + size]
                    position += size
                case wire_type:
                    raise ModelPackageError(f"the model is not an ONNX file: unknown wire type {wire_type}")
            if position > end:
                raise ModelPackageError("the model is not an ONNX file: a field is longer than its message")
            found.setdefault((key & 0xFFFFFFFF) >> 3, []).append(value)  # parsers ignore the bits above 32
            self._count(1)
        return found

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > _MAX_FIELDS:
            raise ModelPackageError(f"the model has more than {_MAX_FIELDS} fields")

    def text(self, message: Message, number: int) -> str:
        """Return a string, or "" if it is absent."""
        return self._text(_one(message, number)) if number in message else ""

    def _text(self, value: object) -> str:
        try:
            return self._content(value).decode()
        except UnicodeDecodeError as error:
            raise ModelPackageError(f"the model is not an ONNX file: a name is not UTF-8: {error}") from error

    def _bytes(self, message: Message, number: int) -> bytes:
        return self._content(_one(message, number)) if number in message else b""

    def _texts(self, message: Message, number: int) -> tuple[str, ...]:
        return tuple(map(self._text, message.get(number, [])))

    def _content(self, value: object) -> bytes:
        if not isinstance(value, tuple):
            raise ModelPackageError("the model is not an ONNX file: expected bytes, got a number")
        return self._data[slice(*value)]

    def _integers(self, message: Message, number: int) -> tuple[int, ...]:
        """Return a repeated integer, whose values are fields or packed into one field."""
        values: list[int] = []
        for value in message.get(number, []):
            if isinstance(value, int):
                values.append(_signed(value))
                continue
            content = self._content(value)
            self._count(len(content))
            position = 0
            while position < len(content):
                packed, position = _varint(content, position, len(content))
                values.append(_signed(packed))
        return tuple(values)

    def _floats(self, message: Message, number: int) -> tuple[float, ...]:
        parts = (value if isinstance(value, bytes) else self._content(value) for value in message.get(number, []))
        content = b"".join(parts)
        self._count(len(content))
        return struct.unpack(f"<{len(content) // 4}f", content[: len(content) // 4 * 4])

    def _input(self, value: object) -> tuple[str, tuple[int | None, ...]]:
        message = self.message(value)
        tensor = self.message(_one(self.message(_one(message, 2)), 1))
        dimensions = map(self.message, self.message(_one(tensor, 2)).get(1, []) if 2 in tensor else [])
        return self.text(message, 1), tuple(_integer(size, 1) if 1 in size else None for size in dimensions)

    def _tensor(self, value: object) -> Tensor:
        message = self.message(value)
        if 13 in message or _integer(message, 14):
            raise ModelPackageError(
                "the model refers to data outside its file; a package's model must be self-contained"
            )
        shape, data_type = self._integers(message, 1), _integer(message, 2)
        start, end = value if isinstance(value, tuple) else (0, 0)
        if len(shape) > MAX_RANK:
            raise ModelPackageError(f"a tensor has {len(shape)} dimensions, more than {MAX_RANK}")
        if any(size < 0 for size in shape) or math.prod(shape) > end - start:
            raise ModelPackageError(f"a tensor of shape {shape} has less data than that")
        values = None
        if data_type in _INTEGERS and math.prod(shape) <= _MAX_VALUES:
            if 9 in message:
                content = self._content(_one(message, 9))
                kind = np.dtype(_INTEGERS[data_type])
                values = tuple(np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind).tolist())
            else:
                values = self._integers(message, 7 if data_type == _INT64 else 5)
            if len(values) != math.prod(shape):
                raise ModelPackageError(f"a tensor of shape {shape} has {len(values)} values")
        return Tensor(self.text(message, 8), shape, data_type, values)

    def _nodes(self, values: list[int | bytes | Span]) -> tuple[Node, ...]:
        if len(values) > MAX_NODES:
            raise ModelPackageError(f"the model has {len(values)} nodes, more than {MAX_NODES}")
        return tuple(map(self._node, values))

    def _node(self, value: object) -> Node:
        message = self.message(value)
        operator = self.text(message, 4)
        attributes, references = self._attributes(operator, message.get(5, []))
        inputs, outputs = self._texts(message, 1), self._texts(message, 2)
        return Node(self.text(message, 7), operator, inputs, outputs, attributes, references)

    def _attributes(self, owner: str, values: list[int | bytes | Span]) -> tuple[dict[str, Attribute], dict[str, str]]:
        attributes: dict[str, Attribute] = {}
        references: dict[str, str] = {}
        for value in values:
            message = self.message(value)
            name = self.text(message, 1)
            if name in attributes or name in references:
                raise ModelPackageError(f"{owner} has the attribute {name} twice")
            if 21 in message:
                # ONNX Runtime would use a value beside the reference where it does not follow the reference.
                if message.keys() - {1, 13, 20, 21}:
                    raise ModelPackageError(f"the attribute {owner}.{name} has both a value and a reference")
                references[name] = self.text(message, 21)
            else:
                attributes[name] = self._attribute(f"{owner}.{name}", message)
        return attributes, references

    def _attribute(self, name: str, message: Message) -> Attribute:
        kind = _integer(message, 20)
        number, read = self._kinds.get(kind, (0, None))
        unexpected = message.keys() - {1, 13, 20, number}
        if read is None or unexpected:
            what = "is a graph" if unexpected & {6, 11} or kind in (5, 10) else f"has the type {kind}"
            raise ModelPackageError(f"the attribute {name} {what}; expected numbers, text or a tensor")
        return read(message, number)

    def _function(self, message: Message) -> Function:
        defaults, _ = self._attributes(self.text(message, 1), message.get(11, []))
        return Function(
            self.text(message, 10),
            self.text(message, 1),
            self._texts(message, 4),
            self._texts(message, 5),
            defaults,
            self._nodes(message.get(7, [])),
        )


def _one(message: Message, number: int) -> int | bytes | Span:
    """Return the value of a field that occurs once. Parsers merge or replace values that are repeated."""
    values = message.get(number, [])
    if len(values) != 1:
        raise ModelPackageError(
            f"the model is not an ONNX file: expected field {number} once, got it {len(values)} times"
        )
    return values[0]


def _integer(message: Message, number: int) -> int:
    value = _one(message, number) if number in message else 0
    if not isinstance(value, int):
        raise ModelPackageError(f"the model is not an ONNX file: expected an integer in field {number}")
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the varint at `position`, and the position after it."""
    if position < end and data[position] < 0x80:  # nearly all are one byte
        return data[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise ModelPackageError("the model is not an ONNX file: a varint is incomplete")
