"""External data is detected wherever an ONNX file can have a tensor, and cannot be hidden by unusual encodings."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pdeinfer.runtime.external_data import has_external_data


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


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_detected(place: str) -> None:
    assert has_external_data(in_every_place(True)[place].SerializeToString())


@pytest.mark.parametrize("place", PLACES)
def test_embedded_data_is_not_external(place: str) -> None:
    assert not has_external_data(in_every_place(False)[place].SerializeToString())


def test_either_field_alone_means_external() -> None:
    for field in ("data_location", "external_data"):
        w = tensor(True)
        w.ClearField(field)
        assert has_external_data(helper.make_model(graph(initializer=[w])).SerializeToString())


def test_an_explicit_default_location_is_not_external() -> None:
    w = tensor(False)
    w.data_location = TensorProto.DEFAULT
    assert not has_external_data(helper.make_model(graph(initializer=[w])).SerializeToString())


def test_overlong_varints_do_not_hide_it() -> None:
    # model.graph (7) . initializer (5) . data_location (14) = 1, each key and length with redundant bytes
    content = b"\xf0\x80\x00\x81\x00"
    for key in (5, 7):
        content = bytes([(key << 3 | 2) | 0x80, 0x80, 0x00, len(content) | 0x80, 0x00]) + content
    parsed = onnx.ModelProto.FromString(content)
    assert parsed.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert has_external_data(content)


def test_ignored_bits_of_a_key_do_not_hide_it() -> None:
    content = tensor(True).SerializeToString()
    for key in (5, 7):
        content = _varint(1 << 34 | key << 3 | 2) + _varint(len(content)) + content
    assert has_external_data(content)


def test_a_message_split_in_two_does_not_hide_it() -> None:
    content = helper.make_model(graph()).SerializeToString() + in_every_place(True)["initializer"].SerializeToString()
    assert onnx.ModelProto.FromString(content).graph.initializer[0].external_data
    assert has_external_data(content)


def test_deep_nesting_does_not_recurse() -> None:
    content = b""
    for _ in range(3000):
        for key in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            content = bytes([key << 3 | 2]) + _varint(len(content)) + content
    assert not has_external_data(b"\x3a" + _varint(len(content)) + content)


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"\x08", b"\x3a\x05ab", b"\x09abc", b"\x0b", b"\x0f", b"\x80" * 11, b"ORTM1234", b"\x3a\x01\xff"],
)
def test_malformed_bytes_are_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|varint|longer"):
        has_external_data(content)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_give_a_bool_or_a_value_error(content: bytes) -> None:
    try:
        assert has_external_data(b"\x3a" + _varint(len(content)) + content) in (True, False)
    except ValueError:
        return


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
