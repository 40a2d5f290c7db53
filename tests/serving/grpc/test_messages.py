"""The protocol's messages: those that its clients send, and what they take in memory."""

import importlib.util
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from pdeinfer import InputSpec
from serving.errors import RequestError
from serving.grpc import messages
from serving.grpc.request import read_request
from serving.grpc.response import encode_response
from serving.grpc.wire import measure, require_few_values
from serving.interface.tensors import InferenceRequest, RequestedOutput
from tests.serving.grpc.conftest import infer_request

FOLDER = Path(messages.__file__).parent
SPEC = InputSpec(height=3, width=4, channels=1, mean=(0.0,), std=(1.0,))
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 3, 4, 1), np.uint8)
MAX_IMAGES = 4
MAX_VALUES = 48


def test_the_descriptors_are_those_of_the_proto_file(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    made = tmp_path / "made.binpb"
    arguments = [f"--proto_path={FOLDER}", f"--descriptor_set_out={made}", "open_inference.proto"]
    # In a process of its own: with the libraries of TensorFlow or Ray in one, protoc crashes.
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
    assert made.read_bytes() == (FOLDER / "open_inference.binpb").read_bytes()


def fields(message: Any) -> dict[str, tuple[int, int, bool]]:
    return {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}


def test_every_field_is_that_of_tritons_client() -> None:
    file = messages.POOL.FindFileByName("open_inference.proto")
    remaining = [
        (message, service_pb2.DESCRIPTOR.message_types_by_name) for message in file.message_types_by_name.values()
    ]
    count = 0
    while remaining:
        ours, others = remaining.pop()
        theirs = others[ours.name]
        assert fields(theirs).items() >= fields(ours).items()
        remaining.extend((nested, theirs.nested_types_by_name) for nested in ours.nested_types)
        count += 1
    assert count > 20
    service = messages.POOL.FindServiceByName(messages.SERVICE)
    assert service.full_name == service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


def require_little_memory(message: bytes) -> None:
    require_few_values(measure(message, MAX_IMAGES).value_bytes, MAX_VALUES)


def read(request: Any, outputs: tuple[str, ...] = ("probabilities",)) -> InferenceRequest:
    message = request.SerializeToString()
    require_little_memory(message)
    return read_request(messages.parse(messages.ModelInferRequest, message), SPEC, MAX_IMAGES, outputs)


def refusal(request: Any, outputs: tuple[str, ...] = ("probabilities",)) -> str:
    with pytest.raises(RequestError) as caught:
        read(request, outputs)
    assert caught.value.code == "invalid_request"
    return str(caught.value)


def typed_request(shape: tuple[int, ...], datatype: str = "UINT8", **contents: Any) -> Any:
    request = messages.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="image", datatype=datatype, shape=shape)
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return request


def test_pixels_are_read_from_binary_and_from_typed_contents() -> None:
    typed = read(typed_request(PIXELS.shape, uint_contents=PIXELS.ravel().tolist()))
    binary = read(infer_request(PIXELS, id="7"))

    np.testing.assert_array_equal(typed.images, PIXELS)
    np.testing.assert_array_equal(binary.images, PIXELS)
    assert (typed.id, binary.id) == ("", "7")
    # Outputs have the form of the input.
    assert typed.outputs == (RequestedOutput("probabilities", binary=False),)
    assert binary.outputs == (RequestedOutput("probabilities", binary=True),)


def test_an_id_is_as_long_as_over_http() -> None:
    assert read(infer_request(PIXELS, id="x" * (2**14 - 1))).id == "x" * (2**14 - 1)
    for text in ("x" * 2**14, "é" * 2**13):
        assert refusal(infer_request(PIXELS, id=text)) == "id: expected fewer than 16384 bytes"


def test_encoded_images_are_read_from_binary_and_from_typed_contents() -> None:
    binary = messages.ModelInferRequest(raw_input_contents=[b"\x03\0\0\0png\x04\0\0\0jpeg"])
    binary.inputs.add(name="image", datatype="BYTES", shape=(2,))

    assert read(binary).images == [b"png", b"jpeg"]
    assert read(typed_request((2,), "BYTES", bytes_contents=[b"png", b"jpeg"])).images == [b"png", b"jpeg"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "the uint_contents of 'image': expected 12 values, got '0 values'"),
        ({"uint_contents": [1] * 11}, "the uint_contents of 'image': expected 12 values, got '11 values'"),
        ({"uint_contents": [1] * 11 + [256]}, "the uint_contents of 'image': expected integers from 0 to 255, got 256"),
        ({"int_contents": [1] * 12}, "the contents of 'image': expected uint_contents, got 'int_contents'"),
        ({"bytes_contents": [b"png"]}, "the contents of 'image': expected uint_contents, got 'bytes_contents'"),
        (
            {"uint_contents": [1] * 12, "fp32_contents": [1.0]},
            "the contents of 'image': expected uint_contents, got 'fp32_contents'",
        ),
    ],
)
def test_wrong_contents_are_refused(contents: dict[str, Any], message: str) -> None:
    assert refusal(typed_request((1, 3, 4, 1), **contents)) == message


@pytest.mark.parametrize("name", ["image", "probabilities"])
def test_shared_memory_is_refused_by_name(name: str) -> None:
    request = infer_request(PIXELS)
    output = request.outputs.add(name="probabilities")
    tensor = output if name == "probabilities" else request.inputs[0]
    tensor.parameters["shared_memory_region"].string_param = "region"

    assert refusal(request) == (
        f"shared_memory_region of {name!r}: shared memory is not supported: send the data in the request"
    )


@pytest.mark.parametrize("count", [0, 2])
def test_encoded_images_of_another_number_are_refused(count: int) -> None:
    assert "expected 1 values" in refusal(typed_request((1,), "BYTES", bytes_contents=[b"png"] * count))


def test_binary_and_typed_contents_together_are_refused() -> None:
    request = typed_request((1, 3, 4, 1), uint_contents=[1] * 12)
    request.raw_input_contents.append(b"0" * 12)

    assert "has both contents and raw_input_contents" in refusal(request)


def test_binary_contents_without_an_input_are_refused() -> None:
    request = infer_request(PIXELS)
    request.raw_input_contents.append(b"")

    assert refusal(request) == "raw_input_contents: expected one, of the one input, got '2'"


@pytest.mark.parametrize("shape", [(), (0, 3, 4, 1), (5, 3, 4, 1), (1, 4, 3, 1), (-1, 3, 4, 1), (2**62, 3, 4, 1)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    message = refusal(typed_request(shape, uint_contents=[1] * 12))

    assert message.startswith("the shape of 'image': expected [N, 3, 4, 1] with N from 1 to 4, got ")


@pytest.mark.parametrize(
    ("parameter", "classification"), [({"int64_param": 2}, 2), ({"uint64_param": 2}, 2), ({}, None)]
)
def test_classification_is_an_integer(parameter: dict[str, int], classification: int | None) -> None:
    request = infer_request(PIXELS)
    output = request.outputs.add(name="probabilities")
    output.parameters["classification"].SetInParent()
    for name, value in parameter.items():
        setattr(output.parameters["classification"], name, value)

    assert read(request).outputs == (RequestedOutput("probabilities", True, classification),)


@pytest.mark.parametrize("parameter", [{"int64_param": 0}, {"string_param": "2"}, {"bool_param": True}])
def test_another_classification_is_refused(parameter: dict[str, Any]) -> None:
    request = infer_request(PIXELS)
    for name, value in parameter.items():
        setattr(request.outputs.add(name="probabilities").parameters["classification"], name, value)

    assert "classification: expected a positive integer" in refusal(request)


def test_features_and_probabilities_are_answered_in_the_order_of_the_request() -> None:
    request = infer_request(PIXELS)
    request.outputs.add(name="features")
    request.outputs.add(name="probabilities")
    results = {"probabilities": np.ones((2, 3), np.float32), "features": np.zeros((2, 5), np.float32)}

    inference = read(request, ("probabilities", "features"))
    answer = messages.ModelInferResponse.FromString(encode_response(inference, "tiny", "1", ("a", "b", "c"), results))

    assert [(output.name, list(output.shape)) for output in answer.outputs] == [
        ("features", [2, 5]),
        ("probabilities", [2, 3]),
    ]
    assert list(answer.raw_output_contents) == [results[name].tobytes() for name in ("features", "probabilities")]


@pytest.mark.parametrize("classification", [None, 2])
def test_typed_requests_get_typed_answers(classification: int | None) -> None:
    inference = InferenceRequest("", PIXELS, (RequestedOutput("probabilities", False, classification),))
    results = {"probabilities": np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32)}

    answer = messages.ModelInferResponse.FromString(encode_response(inference, "tiny", "1", ("a", "b", "c"), results))

    (output,) = answer.outputs
    assert not answer.raw_output_contents
    if classification is None:
        assert (output.datatype, list(output.shape)) == ("FP32", [2, 3])
        np.testing.assert_array_equal(np.float32(output.contents.fp32_contents), results["probabilities"].ravel())
    else:
        assert (output.datatype, list(output.shape)) == ("BYTES", [2, 2])
        assert list(output.contents.bytes_contents) == [b"0.7:1:b", b"0.2:2:c", b"0.5:0:a", b"0.3:2:c"]


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return varint_rest(value) if value > 127 else bytes([value])


def varint_rest(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7)


SMALL = 2**16


@pytest.mark.parametrize(
    "message",
    [
        delimited(5, b"") * 2000,  # inputs: each takes 40 times its bytes
        delimited(7, b"") * 2000,  # raw_input_contents
        delimited(4, b"") * 2000,  # parameters
        delimited(5, delimited(5, delimited(8, b"") * 2000)),  # bytes_contents
        delimited(5, delimited(5, b"\x20\x01" * 2000)),  # uint_contents, one by one
        delimited(5, delimited(5, delimited(4, b"\1" * (2 * MAX_VALUES + 1)))),  # uint_contents
        delimited(5, delimited(5, delimited(3, b"\1" * (SMALL + 1)))),  # int64_contents
        delimited(5, delimited(3, b"\1" * (SMALL + 1))),  # shape
        delimited(1, b"x" * (SMALL + 1)),  # model_name
        delimited(99, b"x" * (SMALL + 1)),  # a field that there is not
        delimited(1, b"x" * (SMALL // 2)) + delimited(3, b"x" * (SMALL // 2 + 1)),
    ],
)
def test_messages_that_would_take_much_memory_are_refused_before_they_are_parsed(message: bytes) -> None:
    with pytest.raises(RequestError, match="expected at most") as caught:
        require_little_memory(message)

    assert caught.value.code == "invalid_request"


def test_images_may_fill_a_message() -> None:
    files = delimited(5, delimited(5, delimited(8, b"x" * 2**20) * MAX_IMAGES))

    require_little_memory(files + delimited(7, b"x" * 2**20))


@pytest.mark.parametrize("message", [b"\xff", b"\xff" * 20, b"\x3a\x05abc", b"\x09\0", b"\x0b\x0c", b"\x2a\x01\xff"])
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    with pytest.raises(RequestError, match="not of the type"):
        require_little_memory(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_measured_or_refused(message: bytes) -> None:
    with suppress(RequestError):
        require_little_memory(message)
        messages.parse(messages.ModelInferRequest, message)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_what_protobuf_reads_is_not_refused(content: bytes, position: int) -> None:
    message = infer_request(PIXELS, id="1").SerializeToString()
    message = message[:position] + content + message[position + len(content) :]
    try:
        messages.ModelInferRequest.FromString(message)
    except DecodeError:
        return
    if not any(byte & 7 in (3, 4) for byte in content):  # groups, which no client sends
        require_little_memory(message)
