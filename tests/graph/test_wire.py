"""ONNX files are read without the onnx package; data outside the file cannot be hidden by unusual encodings."""

import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pdeinfer.errors import ModelPackageError
from pdeinfer.graph import onnx_fields
from pdeinfer.graph.wire import Graph, read_graph, read_metadata
from pdeinfer.package.package import ONNX_FILE


def tensor(external: bool) -> TensorProto:
    result = numpy_helper.from_array(np.ones(2, np.float32), "w")
    if external:
        result.ClearField("raw_data")
        result.data_location = TensorProto.EXTERNAL
        result.external_data.add(key="location", value="../secret")
    return result


def graph(nodes: list[onnx.NodeProto] = (), **fields: object) -> onnx.GraphProto:
    result = helper.make_graph(list(nodes), "g", [], [])
    for name, values in fields.items():
        getattr(result, name).extend(values)
    return result


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


def node(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Op", [], ["y"], **attributes)


def in_every_place(external: bool) -> dict[str, onnx.ModelProto]:
    w, fine = tensor(external), tensor(False)
    function = helper.make_function("d", "F", [], ["y"], [node(value=w)], [])
    with_default = helper.make_function("d", "F", [], ["y"], [], [], attribute_protos=[helper.make_attribute("a", w)])
    training = helper.make_model(graph())
    training.training_info.add(algorithm=graph(initializer=[w]))
    return {
        "initializer": helper.make_model(graph(initializer=[w])),
        "sparse values": helper.make_model(graph(sparse_initializer=[sparse(w, fine)])),
        "sparse indices": helper.make_model(graph(sparse_initializer=[sparse(fine, w)])),
        "attribute": helper.make_model(graph([node(value=w)])),
        "attribute of tensors": helper.make_model(graph([node(values=[fine, w])])),
        "attribute of a sparse tensor": helper.make_model(graph([node(value=sparse(w, fine))])),
        "attribute of sparse tensors": helper.make_model(graph([node(values=[sparse(w, fine)])])),
        "branch": helper.make_model(graph([node(then_branch=graph([node(value=w)]))])),
        "branches": helper.make_model(graph([node(branches=[graph(), graph(initializer=[w])])])),
        "function": helper.make_model(graph(), functions=[function]),
        "function's default": helper.make_model(graph(), functions=[with_default]),
        "training": training,
    }


PLACES = list(in_every_place(True))
PLAIN = ("initializer", "attribute", "function", "function's default")  # where packages may have tensors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (onnx_fields.ModelField, onnx.ModelProto),
        (onnx_fields.OperatorSetIdField, onnx.OperatorSetIdProto),
        (onnx_fields.StringStringEntryField, onnx.StringStringEntryProto),
        (onnx_fields.GraphField, onnx.GraphProto),
        (onnx_fields.FunctionField, onnx.FunctionProto),
        (onnx_fields.NodeField, onnx.NodeProto),
        (onnx_fields.AttributeField, onnx.AttributeProto),
        (onnx_fields.TensorField, onnx.TensorProto),
        (onnx_fields.ValueInfoField, onnx.ValueInfoProto),
        (onnx_fields.TypeField, onnx.TypeProto),
        (onnx_fields.TensorTypeField, onnx.TypeProto.Tensor),
        (onnx_fields.TensorShapeField, onnx.TensorShapeProto),
        (onnx_fields.DimensionField, onnx.TensorShapeProto.Dimension),
    ],
)
def test_field_numbers_are_those_of_onnx(fields: type[IntEnum], message: type) -> None:
    known = message.DESCRIPTOR.fields_by_name
    assert {field.name: field.value for field in fields} == {
        field.name: known[field.name.lower()].number for field in fields
    }


@pytest.mark.parametrize(
    ("types", "known"),
    [(onnx_fields.AttributeType, onnx.AttributeProto.AttributeType), (onnx_fields.DataType, TensorProto.DataType)],
)
def test_type_numbers_are_those_of_onnx(types: type[IntEnum], known: EnumTypeWrapper) -> None:
    assert {kind.name: kind.value for kind in types} == {kind.name: known.Value(kind.name) for kind in types}


def read(model: onnx.ModelProto | bytes) -> Graph:
    return read_graph(model if isinstance(model, bytes) else model.SerializeToString())


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_wherever_a_tensor_can_be(place: str) -> None:
    with pytest.raises(ModelPackageError):
        read(in_every_place(True)[place])


@pytest.mark.parametrize("place", PLAIN)
def test_embedded_data_is_read(place: str) -> None:
    assert read(in_every_place(False)[place])


@pytest.mark.parametrize("place", [place for place in PLACES if place not in PLAIN])
def test_graphs_in_nodes_and_sparse_tensors_are_refused_whatever_their_data(place: str) -> None:
    with pytest.raises(ModelPackageError, match=r"graph|sparse|type"):
        read(in_every_place(False)[place])


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_either_field_alone_means_external(field: str) -> None:
    w = tensor(True)
    w.ClearField(field)
    with pytest.raises(ModelPackageError, match="self-contained"):
        read(helper.make_model(graph(initializer=[w])))


def test_an_explicit_default_location_is_not_external() -> None:
    w = tensor(False)
    w.data_location = TensorProto.DEFAULT
    assert read(helper.make_model(graph(initializer=[w]))).initializers[0].shape == (2,)


def test_overlong_varints_do_not_hide_external_data() -> None:
    # model.graph (7) . initializer (5) . data_location (14) = 1, each key and length with redundant bytes
    content = b"\xf0\x80\x00\x81\x00"
    for key in (5, 7):
        content = bytes([(key << 3 | 2) | 0x80, 0x80, 0x00, len(content) | 0x80, 0x00]) + content
    assert onnx.ModelProto.FromString(content).graph.initializer[0].data_location == TensorProto.EXTERNAL
    with pytest.raises(ModelPackageError, match="self-contained"):
        read(content)


def test_ignored_bits_of_a_key_do_not_hide_external_data() -> None:
    content = tensor(True).SerializeToString()
    for key in (5, 7):
        content = _varint(1 << 34 | key << 3 | 2) + _varint(len(content)) + content
    with pytest.raises(ModelPackageError, match="self-contained"):
        read(content)


def test_a_message_in_two_parts_which_parsers_would_merge_is_refused() -> None:
    content = helper.make_model(graph()).SerializeToString() + in_every_place(True)["initializer"].SerializeToString()
    assert onnx.ModelProto.FromString(content).graph.initializer[0].external_data
    with pytest.raises(ModelPackageError, match="field 7"):
        read(content)


def test_the_structure_is_read_as_onnx_reads_it(package_folder: Path) -> None:
    content = (package_folder / ONNX_FILE).read_bytes()
    model, found = onnx.load_model_from_string(content), read(content)
    assert found.inputs == {"image": (None, 8, 8, 1)}
    assert found.outputs == ("probabilities",)
    assert [node.operator for node in found.nodes] == [node.op_type for node in model.graph.node]
    assert [node.inputs for node in found.nodes] == [tuple(node.input) for node in model.graph.node]
    assert [(w.name, w.shape) for w in found.initializers] == [(w.name, tuple(w.dims)) for w in model.graph.initializer]
    assert found.initializers[0].values == (-1, 64)
    assert read_metadata(content) == {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("is_raw", [False, True])
def test_integers_are_read_in_every_form(kind: type, is_raw: bool) -> None:
    values = np.array([-1, 0, 2**31 - 1], kind)
    w = numpy_helper.from_array(values, "w")
    if not is_raw:
        w = helper.make_tensor("w", w.data_type, [3], values)
    assert read(helper.make_model(graph(initializer=[w]))).initializers[0].values == (-1, 0, 2**31 - 1)


def test_attributes_are_read() -> None:
    attributes = {"f": 1.5, "i": -3, "s": b"SAME", "fs": [1.0, -2.0], "is": [-1, 2**40]}
    (found,) = read(helper.make_model(graph([node(**attributes)]))).nodes
    assert found.attributes == {**attributes, "fs": (1.0, -2.0), "is": (-1, 2**40)}


@pytest.mark.parametrize(
    "shape", [[2**36], [2**40, 2**40], [3], [-2], [1] * 9, [2**62] * 5000], ids=lambda shape: str(shape)[:20]
)
def test_a_tensor_that_claims_more_than_it_has_is_refused(shape: list[int]) -> None:
    w = TensorProto(name="w", data_type=TensorProto.INT64, dims=shape, raw_data=bytes(16))
    with pytest.raises(ModelPackageError, match="tensor"):
        read(helper.make_model(graph(initializer=[w])))


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x01" * 600_000,  # ir_version
        b"\x3a\xc0\x9a\x0c" + b"\x0a\x00" * 100_000,  # model.graph of empty nodes
    ],
    ids=["fields", "nodes"],
)
def test_a_file_of_too_many_fields_or_nodes_is_refused_soon(content: bytes) -> None:
    started = time.thread_time()
    with pytest.raises(ModelPackageError, match="more than"):
        read(content)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"\x08", b"\x3a\x05ab", b"\x09abc", b"\x0b", b"\x0f", b"\x80" * 11, b"ORTM1234", b"\x3a\x01\xff"],
)
def test_bytes_that_are_no_onnx_file_are_refused(content: bytes) -> None:
    with pytest.raises(ModelPackageError, match="not an ONNX file"):
        read(content)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for model in (content, b"\x3a" + _varint(len(content)) + content):
        for function in (read_graph, read_metadata):
            with suppress(ModelPackageError):
                function(model)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
