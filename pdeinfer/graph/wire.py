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
from pdeinfer.graph.onnx_fields import (
    AttributeField,
    AttributeType,
    DataType,
    DimensionField,
    FunctionField,
    GraphField,
    ModelField,
    NodeField,
    OperatorSetIdField,
    StringStringEntryField,
    TensorField,
    TensorShapeField,
    TensorTypeField,
    TypeField,
    ValueInfoField,
)

# A field's value: a varint, four or eight bytes, or the range of the content of a string or message.
Span: TypeAlias = tuple[int, int]
Message: TypeAlias = dict[int, list[int | bytes | Span]]
Attribute: TypeAlias = "int | float | bytes | tuple[int, ...] | tuple[float, ...] | Tensor"

MAX_NODES = 20_000
MAX_RANK = 8
MAX_FIELDS = 500_000
_MAX_NAME_BYTES = 1024  # the longest names of tf2onnx, which join those of all layers around, have about 100
_MAX_VALUES = 64  # a tensor's integers are read up to this number: shapes, axes and bounds have fewer

# By a tensor's type, if it has integers that may set shapes: the field that holds them, and their type in RAW_DATA.
_INTEGERS: dict[int, tuple[TensorField, str]] = {
    DataType.INT32: (TensorField.INT32_DATA, "<i4"),
    DataType.INT64: (TensorField.INT64_DATA, "<i8"),
}
# The fields that say nothing of an attribute's value.
_BESIDE_VALUE = {AttributeField.NAME, AttributeField.DOC_STRING, AttributeField.TYPE}


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
    reader = _Reader(model, max_text_bytes=len(model))
    entries = map(reader.message, reader.message((0, len(model))).get(ModelField.METADATA_PROPS, []))
    key, value = StringStringEntryField.KEY, StringStringEntryField.VALUE
    return {reader.text(entry, key): reader.text(entry, value) for entry in entries}


class _Reader:
    """Reads messages of onnx.proto by the numbers of their fields, up to a total number of fields."""

    def __init__(self, data: bytes, max_text_bytes: int = _MAX_NAME_BYTES) -> None:
        self._data = data
        self._max_text_bytes = max_text_bytes
        self._values = 0
        # By the type of an attribute: the number of the field with its value, and what reads it.
        self._kinds: dict[int, tuple[AttributeField, Callable[[Message, int], Attribute]]] = {
            AttributeType.FLOAT: (AttributeField.F, lambda message, number: (*self._floats(message, number), 0.0)[0]),
            AttributeType.INT: (AttributeField.I, lambda message, number: _signed(_integer(message, number))),
            AttributeType.STRING: (AttributeField.S, self._bytes),
            AttributeType.TENSOR: (AttributeField.T, lambda message, number: self._tensor(_one(message, number))),
            AttributeType.FLOATS: (AttributeField.FLOATS, self._floats),
            AttributeType.INTS: (AttributeField.INTS, self._integers),
            AttributeType.STRINGS: (AttributeField.STRINGS, lambda *_: ()),
        }

    def graph(self) -> Graph:
        """Return the graph and the functions of the file."""
        model = self.message((0, len(self._data)))
        graph = self.message(_one(model, ModelField.GRAPH))
        if ModelField.TRAINING_INFO in model or GraphField.SPARSE_INITIALIZER in graph:
            raise ModelPackageError("the model has a training graph or sparse tensors")
        outputs = map(self.message, graph.get(GraphField.OUTPUT, []))
        versions = map(self.message, model.get(ModelField.OPSET_IMPORT, []))
        return Graph(
            inputs=dict(map(self._input, graph.get(GraphField.INPUT, []))),
            outputs=tuple(self.text(output, ValueInfoField.NAME) for output in outputs),
            initializers=tuple(map(self._tensor, graph.get(GraphField.INITIALIZER, []))),
            nodes=self._nodes(graph.get(GraphField.NODE, [])),
            functions=tuple(map(self._function, model.get(ModelField.FUNCTIONS, []))),
            versions=frozenset(
                (self.text(entry, OperatorSetIdField.DOMAIN), _integer(entry, OperatorSetIdField.VERSION))
                for entry in versions
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
        if self._values > MAX_FIELDS:
            raise ModelPackageError(f"the model has more than {MAX_FIELDS} fields")

    def text(self, message: Message, number: int) -> str:
        """Return a string, or "" if it is absent."""
        return self._text(_one(message, number)) if number in message else ""

    def _text(self, value: object) -> str:
        content = self._content(value)
        if len(content) > self._max_text_bytes:
            raise ModelPackageError(f"a name in the model has {len(content)} bytes, more than {self._max_text_bytes}")
        try:
            return content.decode()
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
        kind = self.message(_one(message, ValueInfoField.TYPE))
        tensor = self.message(_one(kind, TypeField.TENSOR_TYPE))
        shape = self.message(_one(tensor, TensorTypeField.SHAPE)) if TensorTypeField.SHAPE in tensor else {}
        size = DimensionField.DIM_VALUE
        dimensions = map(self.message, shape.get(TensorShapeField.DIM, []))
        sizes = tuple(_integer(dimension, size) if size in dimension else None for dimension in dimensions)
        return self.text(message, ValueInfoField.NAME), sizes

    def _tensor(self, value: object) -> Tensor:
        message = self.message(value)
        if TensorField.EXTERNAL_DATA in message or _integer(message, TensorField.DATA_LOCATION):
            raise ModelPackageError(
                "the model refers to data outside its file; a package's model must be self-contained"
            )
        shape = self._integers(message, TensorField.DIMS)
        data_type = _integer(message, TensorField.DATA_TYPE)
        start, end = value if isinstance(value, tuple) else (0, 0)
        if len(shape) > MAX_RANK:
            raise ModelPackageError(f"a tensor has {len(shape)} dimensions, more than {MAX_RANK}")
        if any(size < 0 for size in shape) or math.prod(shape) > end - start:
            raise ModelPackageError(f"a tensor of shape {shape} has less data than that")
        values = None
        if data_type in _INTEGERS and math.prod(shape) <= _MAX_VALUES:
            number, kind = _INTEGERS[data_type]
            if TensorField.RAW_DATA in message:
                content = self._content(_one(message, TensorField.RAW_DATA))
                itemsize = np.dtype(kind).itemsize
                values = tuple(np.frombuffer(content[: len(content) // itemsize * itemsize], kind).tolist())
            else:
                values = self._integers(message, number)
            if len(values) != math.prod(shape):
                raise ModelPackageError(f"a tensor of shape {shape} has {len(values)} values")
        return Tensor(self.text(message, TensorField.NAME), shape, data_type, values)

    def _nodes(self, values: list[int | bytes | Span]) -> tuple[Node, ...]:
        if len(values) > MAX_NODES:
            raise ModelPackageError(f"the model has {len(values)} nodes, more than {MAX_NODES}")
        return tuple(map(self._node, values))

    def _node(self, value: object) -> Node:
        message = self.message(value)
        operator = self.text(message, NodeField.OP_TYPE)
        attributes, references = self._attributes(operator, message.get(NodeField.ATTRIBUTE, []))
        return Node(
            self.text(message, NodeField.DOMAIN),
            operator,
            self._texts(message, NodeField.INPUT),
            self._texts(message, NodeField.OUTPUT),
            attributes,
            references,
        )

    def _attributes(self, owner: str, values: list[int | bytes | Span]) -> tuple[dict[str, Attribute], dict[str, str]]:
        attributes: dict[str, Attribute] = {}
        references: dict[str, str] = {}
        for value in values:
            message = self.message(value)
            name = self.text(message, AttributeField.NAME)
            if name in attributes or name in references:
                raise ModelPackageError(f"{owner} has the attribute {name} twice")
            if AttributeField.REF_ATTR_NAME in message:
                # ONNX Runtime would use a value beside the reference where it does not follow the reference.
                if message.keys() - {*_BESIDE_VALUE, AttributeField.REF_ATTR_NAME}:
                    raise ModelPackageError(f"the attribute {owner}.{name} has both a value and a reference")
                references[name] = self.text(message, AttributeField.REF_ATTR_NAME)
            else:
                attributes[name] = self._attribute(f"{owner}.{name}", message)
        return attributes, references

    def _attribute(self, name: str, message: Message) -> Attribute:
        kind = _integer(message, AttributeField.TYPE)
        number, read = self._kinds.get(kind, (AttributeField.TYPE, None))
        unexpected = message.keys() - {*_BESIDE_VALUE, number}
        if read is None or unexpected:
            is_graph = unexpected & {AttributeField.G, AttributeField.GRAPHS} or kind in (
                AttributeType.GRAPH,
                AttributeType.GRAPHS,
            )
            what = "is a graph" if is_graph else f"has the type {kind}"
            raise ModelPackageError(f"the attribute {name} {what}; expected numbers, text or a tensor")
        return read(message, number)

    def _function(self, value: object) -> Function:
        message = self.message(value)
        name = self.text(message, FunctionField.NAME)
        defaults, _ = self._attributes(name, message.get(FunctionField.ATTRIBUTE_PROTO, []))
        return Function(
            self.text(message, FunctionField.DOMAIN),
            name,
            self._texts(message, FunctionField.INPUT),
            self._texts(message, FunctionField.OUTPUT),
            defaults,
            self._nodes(message.get(FunctionField.NODE, [])),
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
