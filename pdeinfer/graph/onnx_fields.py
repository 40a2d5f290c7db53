"""The numbers of the fields and types of onnx.proto that `wire` knows, under the names that they have there."""

from enum import IntEnum


class ModelField(IntEnum):
    """The fields of a ModelProto."""

    GRAPH = 7
    OPSET_IMPORT = 8
    METADATA_PROPS = 14
    TRAINING_INFO = 20
    FUNCTIONS = 25


class OperatorSetIdField(IntEnum):
    """The fields of an OperatorSetIdProto."""

    DOMAIN = 1
    VERSION = 2


class StringStringEntryField(IntEnum):
    """The fields of a StringStringEntryProto."""

    KEY = 1
    VALUE = 2


class GraphField(IntEnum):
    """The fields of a GraphProto."""

    NODE = 1
    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12
    SPARSE_INITIALIZER = 15


class FunctionField(IntEnum):
    """The fields of a FunctionProto."""

    NAME = 1
    INPUT = 4
    OUTPUT = 5
    NODE = 7
    DOMAIN = 10
    ATTRIBUTE_PROTO = 11


class NodeField(IntEnum):
    """The fields of a NodeProto."""

    INPUT = 1
    OUTPUT = 2
    OP_TYPE = 4
    ATTRIBUTE = 5
    DOMAIN = 7


class AttributeField(IntEnum):
    """The fields of an AttributeProto. Those of one letter hold one value, as FLOATS holds several."""

    NAME = 1
    F = 2
    I = 3  # noqa: E741  # its name in onnx.proto
    S = 4
    T = 5
    G = 6
    FLOATS = 7
    INTS = 8
    STRINGS = 9
    GRAPHS = 11
    DOC_STRING = 13
    TYPE = 20
    REF_ATTR_NAME = 21


class AttributeType(IntEnum):
    """The values of an attribute's TYPE."""

    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    GRAPHS = 10


class TensorField(IntEnum):
    """The fields of a TensorProto."""

    DIMS = 1
    DATA_TYPE = 2
    INT32_DATA = 5
    INT64_DATA = 7
    NAME = 8
    RAW_DATA = 9
    EXTERNAL_DATA = 13
    DATA_LOCATION = 14


class DataType(IntEnum):
    """The values of a tensor's DATA_TYPE."""

    INT32 = 6
    INT64 = 7
    STRING = 8


class ValueInfoField(IntEnum):
    """The fields of a ValueInfoProto: an input or output of a graph."""

    NAME = 1
    TYPE = 2


class TypeField(IntEnum):
    """The fields of a TypeProto."""

    TENSOR_TYPE = 1


class TensorTypeField(IntEnum):
    """The fields of a TypeProto.Tensor."""

    SHAPE = 2


class TensorShapeField(IntEnum):
    """The fields of a TensorShapeProto."""

    DIM = 1


class DimensionField(IntEnum):
    """The fields of a TensorShapeProto.Dimension."""

    DIM_VALUE = 1
