"""Parsing V2 requests: which are accepted, and how wrong ones are rejected."""

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfer import InputSpec
from serving.errors import RequestError
from serving.http.json_text import LONG_BYTES, PARSED_WHOLE
from serving.http.v2.request import parse_request
from serving.interface.tensors import InferenceRequest, RequestedOutput
from tests.serving.v2.conftest import Request

SPEC = InputSpec(height=3, width=4, channels=1, mean=(0.0,), std=(1.0,))
MAX_IMAGES = 4
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 3, 4, 1), np.uint8)
Binary = Callable[..., tuple[bytes, str]]


def parse(request: Any, header_length: str | None = None) -> InferenceRequest:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return parse_request(body, header_length, SPEC, MAX_IMAGES)


def refusal(request: Any, header_length: str | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        parse(request, header_length)
    assert caught.value.code in ("invalid_request", "invalid_json")
    return str(caught.value)


@pytest.mark.parametrize("data", [PIXELS.tolist(), PIXELS.ravel().tolist()], ids=["nested", "flat"])
def test_pixels_are_read_from_json(request_object: Request, data: list[Any]) -> None:
    parsed = parse(request_object(PIXELS, {"data": data}))

    assert parsed.images.dtype == np.uint8
    np.testing.assert_array_equal(parsed.images, PIXELS)
    assert parsed.id is None
    assert parsed.outputs == (RequestedOutput("probabilities", binary=False),)


def test_pixels_are_read_from_binary_data(binary_request: Binary) -> None:
    np.testing.assert_array_equal(parse(*binary_request(PIXELS)).images, PIXELS)


def test_header_length_of_the_whole_body_means_json_alone(request_object: Request) -> None:
    body = json.dumps(request_object(PIXELS)).encode()

    np.testing.assert_array_equal(parse(body, str(len(body))).images, PIXELS)


@pytest.mark.parametrize(
    ("fields", "binary", "classification"),
    [
        ({}, False, None),
        ({"parameters": {"binary_data_output": True}}, True, None),
        ({"outputs": []}, False, None),
        ({"outputs": [{"name": "probabilities"}]}, False, None),
        ({"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, True, None),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
            },
            False,
            None,
        ),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]}, False, 3),
    ],
)
def test_parameters_choose_the_output(
    request_object: Request, fields: dict[str, Any], binary: bool, classification: int | None
) -> None:
    parsed = parse(request_object(PIXELS, **fields))

    assert parsed.outputs == (RequestedOutput("probabilities", binary, classification),)


def test_a_model_with_features_gives_them_if_they_are_asked_for(request_object: Request) -> None:
    outputs = [{"name": "features", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    body = json.dumps(request_object(PIXELS, outputs=outputs)).encode()

    parsed = parse_request(body, None, SPEC, MAX_IMAGES, ("probabilities", "features"))

    assert parsed.outputs == (RequestedOutput("features", binary=True), RequestedOutput("probabilities", binary=False))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "logits"}], "expected 'probabilities' or 'features', got 'logits'"),
        ([{"name": ["features"]}], "expected 'probabilities' or 'features', got ['features']"),
        ([{"name": "features"}] * 2, "no name twice"),
        ([{"name": "features"}] * 3, "a list of 1 to 2 objects"),
        ([{"name": "features", "parameters": {"classification": 1}}], "classification of 'features': expected none"),
    ],
)
def test_wrong_outputs_of_a_model_with_features_are_named(
    request_object: Request, outputs: list[Any], message: str
) -> None:
    body = json.dumps(request_object(PIXELS, outputs=outputs)).encode()

    with pytest.raises(RequestError) as caught:
        parse_request(body, None, SPEC, MAX_IMAGES, ("probabilities", "features"))
    assert message in str(caught.value)


def test_id_is_kept(request_object: Request) -> None:
    assert parse(request_object(PIXELS, id="42 ☂")).id == "42 ☂"


@pytest.mark.parametrize("text", ["x" * LONG_BYTES, "é" * (LONG_BYTES // 2), "\ud800" * LONG_BYTES, "x" * PARSED_WHOLE])
def test_a_long_id_is_rejected_also_where_long_strings_are_cut_out(request_object: Request, text: str) -> None:
    assert "id: expected fewer than" in refusal(request_object(PIXELS, id=text))


def test_a_byte_order_mark_before_the_json_is_skipped(request_object: Request) -> None:
    body = json.dumps(request_object(PIXELS)).encode("utf-8-sig")

    np.testing.assert_array_equal(parse(body).images, PIXELS)


def test_null_means_absent_and_unknown_fields_are_ignored(request_object: Request) -> None:
    fields: dict[str, Any] = {"id": None, "outputs": None, "parameters": {"priority": 1, "binary_data_output": None}}

    parsed = parse(request_object(PIXELS, {"parameters": None}, model_name="digits", **fields))

    np.testing.assert_array_equal(parsed.images, PIXELS)
    assert parsed == InferenceRequest(None, parsed.images, (RequestedOutput("probabilities", binary=False),))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid: Expecting value"),
        (b"{", "not valid"),
        (b"[]", "the request: expected a JSON object, got []"),
        (b'"image"', "the request: expected a JSON object, got 'image'"),
        (b"\xff\xfe{\x00}\x00", "not valid: 'utf-8' codec"),
        ('{"inputs": []}'.encode("utf-16"), "not valid: 'utf-8' codec"),
        (b'{"inputs": NaN}', "NaN is not JSON"),
        (b'{"id": -Infinity}', "-Infinity is not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not valid: Exceeds the limit"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
    ],
)
def test_body_that_is_not_a_json_object_is_rejected(body: bytes, message: str) -> None:
    assert message in refusal(body)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": 42}, "id: expected a string, got 42"),
        ({"inputs": None}, "inputs: expected a list of one object, for 'image', got None"),
        ({"inputs": []}, "inputs: expected a list of one object"),
        ({"inputs": {}}, "inputs: expected a list of one object"),
        ({"inputs": [1]}, "inputs: expected a list of one object"),
        ({"inputs": [{}, {}]}, "inputs: expected a list of one object"),
        ({"inputs": [{"name": "pixels"}]}, "the name in inputs: expected 'image', got 'pixels'"),
        ({"inputs": [{}]}, "the name in inputs: expected 'image', got None"),
        ({"outputs": {}}, "outputs: expected a list of one object, for 'probabilities'"),
        ({"outputs": [{"name": "logits"}]}, "the name in outputs: expected 'probabilities', got 'logits'"),
        ({"outputs": [{"name": "probabilities"}] * 2}, "outputs: expected a list of one object"),
        ({"parameters": []}, "the parameters of the request: expected a JSON object, got []"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output: expected true or false, got 1"),
        ({"outputs": [{"name": "probabilities", "parameters": 1}]}, "the parameters of 'probabilities'"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"binary_data": "yes"}}]},
            "binary_data: expected true or false, got 'yes'",
        ),
        *(
            (
                {"outputs": [{"name": "probabilities", "parameters": {"classification": value}}]},
                f"classification: expected a positive integer, got {value!r}",
            )
            for value in (0, -1, 1.5, True, "2")
        ),
    ],
)
def test_wrong_field_is_named_with_what_was_expected(
    request_object: Request, fields: dict[str, Any], message: str
) -> None:
    assert message in refusal({**request_object(PIXELS), **fields})


@pytest.mark.parametrize("shape", [None, [], 2, [2, 3, 2], [2, 3, 2, 2, 1], [2, 2, 3, 2], [0, 3, 2, 2], [5, 3, 2, 2]])
def test_wrong_shape_is_rejected(request_object: Request, shape: Any) -> None:
    message = refusal(request_object(PIXELS, {"shape": shape}))

    assert message == f"the shape of 'image': expected [N, 3, 4, 1] with N from 1 to 4, got {shape}"


@pytest.mark.parametrize("size", [-1, 1.0, True, "2", None, [2], 10**100])
def test_size_that_is_not_a_sensible_integer_is_rejected(request_object: Request, size: Any) -> None:
    assert "the shape of 'image'" in refusal(request_object(PIXELS, {"shape": [size, 3, 4, 1]}))


@pytest.mark.parametrize("datatype", ["FP32", "uint8", "INT8", None, 8, ["UINT8"]])
def test_other_datatypes_are_rejected(request_object: Request, datatype: Any) -> None:
    message = refusal(request_object(PIXELS, {"datatype": datatype}))

    assert message == f"the datatype of 'image': expected UINT8 or BYTES, got {datatype!r}"


@pytest.mark.parametrize("value", [256, -1, 10**40, 1.0, 1e999, True, False, None, "7", [7], {}])
@pytest.mark.parametrize("nested", [True, False])
def test_value_that_is_not_a_uint8_is_rejected(request_object: Request, value: Any, nested: bool) -> None:
    data: list[Any] = PIXELS.tolist() if nested else PIXELS.ravel().tolist()
    row: list[Any] = data[1][2][3] if nested else data
    row[-1] = value

    body = json.dumps(request_object(PIXELS, {"data": data})).replace("Infinity", "1e999").encode()

    assert "integers from 0 to 255" in refusal(body)


@pytest.mark.parametrize(
    "data",
    [
        ...,
        None,
        7,
        "AAAA",
        {},
        [],
        [[]],
        PIXELS.ravel().tolist()[:-1],
        [*PIXELS.ravel().tolist(), 0],
        PIXELS[0].tolist(),
        [PIXELS[0].tolist(), PIXELS[1].tolist()[:2]],
        [PIXELS[0].tolist(), [*PIXELS[1].tolist()[:2], [[1], [2], [3], [4, 5]]]],
        [PIXELS[0].tolist(), [*PIXELS[1].tolist()[:2], [[1], [2], [3], 4]]],
        [PIXELS[0].tolist(), 1],
        PIXELS.reshape(2, 12).tolist(),
        [[[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]]] * 2,
    ],
)
def test_missing_ragged_or_wrongly_nested_data_is_rejected(request_object: Request, data: Any) -> None:
    message = refusal(request_object(PIXELS, {"data": data}))

    assert "expected 24 values in one list, or lists nested as the shape [2, 3, 4, 1] says" in message


@pytest.mark.parametrize("length", ["-1", "1.5", "", " 12", "1_0", "٣", "x", "9" * 30, "1000000"])
def test_wrong_header_length_is_rejected(binary_request: Binary, length: str) -> None:
    assert "Inference-Header-Content-Length: expected" in refusal(binary_request(PIXELS)[0], length)


def test_header_length_that_cuts_the_json_is_rejected(binary_request: Binary) -> None:
    body, length = binary_request(PIXELS)

    for wrong in range(int(length)):
        assert "not valid" in refusal(body, str(wrong))


@pytest.mark.parametrize("size", [0, 23, 25, -24, 24.0, True, "24", 10**30])
def test_wrong_binary_data_size_is_rejected(request_object: Request, size: Any) -> None:
    text = json.dumps(request_object(PIXELS, {"data": ..., "parameters": {"binary_data_size": size}})).encode()

    message = refusal(text + PIXELS.tobytes(), str(len(text)))

    assert message == f"binary_data_size: expected 24, the bytes after the JSON, got {size!r}"


@pytest.mark.parametrize("size", [23, 25])
def test_more_or_less_binary_data_than_the_shape_says_is_rejected(request_object: Request, size: int) -> None:
    text = json.dumps(request_object(PIXELS, {"data": ..., "parameters": {"binary_data_size": size}})).encode()

    message = refusal(text + b"0" * size, str(len(text)))

    assert message == f"the binary data: expected 24 bytes, of shape [2, 3, 4, 1] and UINT8, got '{size} bytes'"


def files_request(request_object: Request, content: bytes, **tensor: Any) -> tuple[bytes, str]:
    fields = {"datatype": "BYTES", "data": ..., "parameters": {"binary_data_size": len(content)}, **tensor}
    text = json.dumps(request_object(PIXELS, fields)).encode()
    return text + content, str(len(text))


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_encoded_images_are_read_from_binary_data(request_object: Request, shape: list[int]) -> None:
    content = b"\x03\0\0\0png\x04\0\0\0jpeg"

    assert parse(*files_request(request_object, content, shape=shape)).images == [b"png", b"jpeg"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x03\0\0\0png", b"\x03\0\0\0png\x04\0\0", b"\x03\0\0\0png\x05\0\0\0jpeg", b"\x03\0\0\0png" * 3],
)
def test_encoded_images_that_do_not_fill_the_binary_data_are_rejected(request_object: Request, content: bytes) -> None:
    assert "expected 2 images, each after its length" in refusal(*files_request(request_object, content, shape=[2]))


@pytest.mark.parametrize("shape", [[0], [5], [2, 2], [], [2, 3, 4, 1]])
def test_encoded_images_of_another_shape_are_rejected(request_object: Request, shape: list[int]) -> None:
    message = refusal(*files_request(request_object, b"\0\0\0\0" * 2, shape=shape))

    assert message == f"the shape of 'image': expected [N] with N from 1 to 4, got {shape}"


def test_encoded_images_in_json_are_rejected(request_object: Request) -> None:
    assert "as binary data" in refusal(request_object(PIXELS, {"datatype": "BYTES", "shape": [1], "data": ["png"]}))


def test_binary_data_beside_json_data_or_without_its_size_is_rejected(request_object: Request) -> None:
    both = json.dumps(request_object(PIXELS, {"parameters": {"binary_data_size": 24}})).encode()
    undeclared = json.dumps(request_object(PIXELS)).encode()

    assert "has both data and a binary_data_size" in refusal(both + PIXELS.tobytes(), str(len(both)))
    assert "without a binary_data_size" in refusal(undeclared + b"0", str(len(undeclared)))


@pytest.mark.parametrize("fields", [{}, {"other": ["a"] * 20_000}, {"other": [{}] * 20_000}])
def test_more_json_beside_the_pixels_than_any_request_needs_is_rejected(
    request_object: Request, fields: dict[str, Any]
) -> None:
    padded = json.dumps(request_object(PIXELS, **fields)).encode() + b" " * (0 if fields else PARSED_WHOLE)

    with pytest.raises(RequestError) as caught:
        parse(padded)
    assert caught.value.code == "json_too_large"


@pytest.mark.parametrize("indent", [None, 2, 8])
def test_pixels_may_be_indented_however_long_their_text_is(request_object: Request, indent: int | None) -> None:
    spec = replace(SPEC, height=8, width=8)
    pixels = np.random.default_rng(4).integers(0, 256, (64, 8, 8, 1), np.uint8)
    body = json.dumps(request_object(pixels), indent=indent).encode()

    np.testing.assert_array_equal(parse_request(body, None, spec, len(pixels)).images, pixels)


@pytest.mark.parametrize("value", [b" " * 8000 + b"1", b"1" * 8000, b"0" * 8000, b"1." + b"0" * 8000])
def test_long_texts_of_pixels_take_little_memory(value: bytes) -> None:
    spec = replace(SPEC, height=30)
    head = b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 30, 4, 1], "data": ['
    body = head + b",".join([value] * 240) + b"]}]}"

    tracemalloc.start()
    try:
        with suppress(RequestError):
            parse_request(body, None, spec, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * len(body)


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_shared_memory_is_refused_by_name(request_object: Request, place: str) -> None:
    parameters = {"shared_memory_region": "mine", "shared_memory_byte_size": 24}
    if place == "inputs":
        request = request_object(PIXELS, {"data": ..., "parameters": parameters})
    else:
        request = request_object(PIXELS, outputs=[{"name": "probabilities", "parameters": parameters}])

    assert "shared memory is not supported" in refusal(request)


def test_hostile_json_takes_little_memory() -> None:
    spec = replace(SPEC, height=64, width=64)
    body = b'{"inputs":[' + b"[]," * 250_000 + b"[]]}"

    tracemalloc.start()
    try:
        with pytest.raises(RequestError):
            parse_request(body, None, spec, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 40 * len(body)


def test_messages_quote_only_the_beginning_of_long_values(request_object: Request) -> None:
    assert len(refusal(request_object(PIXELS, {"name": "x" * 50_000}))) < 200
    assert len(refusal(request_object(PIXELS, {"shape": [1] * 20_000}))) < 200
    assert len(refusal({"inputs": [{"a" * 1000: "b" * 1000}] * 20})) < 500
    wide: Any = 0
    for _ in range(5):
        wide = [wide] * 6
    assert len(refusal({"inputs": wide})) < 500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size", "classification"]),
            children,
        )
    ),
    max_leaves=20,
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | json_values,
        "datatype": st.just("UINT8") | json_values,
        "shape": st.just([1, 3, 4, 1]) | json_values,
        "data": st.just([7] * 12) | json_values,
        "parameters": st.just({"binary_data_size": 12}) | json_values,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "inputs": st.lists(tensors, max_size=2) | json_values,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("probabilities")}), max_size=2) | json_values,
        "parameters": json_values,
    },
)


@settings(max_examples=300, deadline=None)
@given(requests, st.binary(max_size=13), st.booleans())
def test_any_json_is_parsed_or_rejected(request: dict[str, Any], rest: bytes, has_length: bool) -> None:
    text = json.dumps(request).encode()
    with suppress(RequestError):
        parsed = parse_request(text + rest, str(len(text)) if has_length else None, SPEC, MAX_IMAGES)
        assert parsed.images.shape == (1, 3, 4, 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.none() | st.text(max_size=4))
def test_any_bytes_are_rejected(body: bytes, header_length: str | None) -> None:
    with pytest.raises(RequestError):
        parse_request(body, header_length, SPEC, MAX_IMAGES)
