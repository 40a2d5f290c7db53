"""V2 responses: JSON, binary data, classification."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from serving.http.v2.response import encode_response
from serving.interface.tensors import InferenceRequest, RequestedOutput

LABELS = ("cat", "dog", "umbrella ☂")
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [1 / 3, 1e-8, 1 / 3]], np.float32)
PIXELS = np.zeros((2, 1, 1, 1), np.uint8)


def encode(*, binary: bool, classification: int | None = None, id_: str | None = None) -> tuple[bytes, dict[str, str]]:
    request = InferenceRequest(id_, PIXELS, (RequestedOutput("probabilities", binary, classification),))
    return encode_response(request, "tiny", "3", LABELS, {"probabilities": PROBABILITIES})


def answer_and_rest(body: bytes, headers: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    assert headers["Content-Type"] == "application/octet-stream"
    length = int(headers["Inference-Header-Content-Length"])
    return json.loads(body[:length]), body[length:]


def test_json_holds_every_float32_exactly() -> None:
    body, headers = encode(binary=False)

    answer = json.loads(body)
    assert headers == {"Content-Type": "application/json"}
    assert (answer["model_name"], answer["model_version"]) == ("tiny", "3")
    assert "id" not in answer
    (output,) = answer["outputs"]
    assert {key: output[key] for key in ("name", "datatype", "shape")} == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [2, 3],
    }
    np.testing.assert_array_equal(np.array(output["data"], np.float32), PROBABILITIES.ravel())


def test_binary_data_is_little_endian_after_the_json() -> None:
    answer, rest = answer_and_rest(*encode(binary=True))

    (output,) = answer["outputs"]
    assert output["parameters"] == {"binary_data_size": 24}
    assert "data" not in output
    assert rest == struct.pack("<6f", *PROBABILITIES.ravel())


def test_numbers_that_are_sent_as_binary_data_are_not_made_python_numbers_too() -> None:
    class Rows(np.ndarray):
        def tolist(self) -> Any:
            raise AssertionError

    request = InferenceRequest(None, PIXELS, (RequestedOutput("probabilities", binary=True),))

    body, _ = encode_response(request, "tiny", "3", LABELS, {"probabilities": PROBABILITIES.view(Rows)})

    assert body.endswith(PROBABILITIES.tobytes())


@pytest.mark.parametrize(("asked", "count"), [(2, 2), (3, 3), (1000, 3)])
def test_classes_are_value_index_label_best_first_and_at_most_all(asked: int, count: int) -> None:
    (output,) = json.loads(encode(binary=False, classification=asked)[0])["outputs"]

    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "BYTES", [2, count])
    expected = [
        ["0.7:1:dog", "0.2:2:umbrella ☂", "0.1:0:cat"],
        ["0.33333334:0:cat", "0.33333334:2:umbrella ☂", "1e-08:1:dog"],
    ]
    assert output["data"] == [text for row in expected for text in row[:count]]


def test_binary_classes_are_prefixed_with_their_length() -> None:
    answer, rest = answer_and_rest(*encode(binary=True, classification=2))

    texts = ["0.7:1:dog", "0.2:2:umbrella ☂", "0.33333334:0:cat", "0.33333334:2:umbrella ☂"]
    assert rest == b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": len(rest)}


@pytest.mark.parametrize("id_", ["42", "", "☂", "\ud800"])
def test_id_is_returned(id_: str) -> None:
    assert json.loads(encode(binary=False, id_=id_)[0])["id"] == id_


def test_nan_is_an_error_and_not_invalid_json() -> None:
    request = InferenceRequest(None, PIXELS, (RequestedOutput("probabilities", binary=False),))

    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_response(request, "tiny", "1", LABELS, {"probabilities": np.full((2, 3), np.nan, np.float32)})


@pytest.mark.parametrize("binary", [(True, True), (True, False), (False, True), (False, False)])
def test_outputs_are_in_the_order_of_the_request(binary: tuple[bool, bool]) -> None:
    features = np.arange(8, dtype=np.float32).reshape(2, 4)
    requested = tuple(map(RequestedOutput, ("features", "probabilities"), binary))
    results = {"probabilities": PROBABILITIES, "features": features}

    body, headers = encode_response(InferenceRequest(None, PIXELS, requested), "tiny", "3", LABELS, results)

    answer, rest = answer_and_rest(body, headers) if any(binary) else (json.loads(body), b"")
    assert [output["name"] for output in answer["outputs"]] == ["features", "probabilities"]
    for output, expected, is_binary in zip(answer["outputs"], (features, PROBABILITIES), binary, strict=True):
        assert output["shape"] == list(expected.shape)
        if is_binary:
            size = output["parameters"]["binary_data_size"]
            found, rest = np.frombuffer(rest[:size], "<f4"), rest[size:]
        else:
            found = np.array(output["data"], np.float32)
        np.testing.assert_array_equal(found, expected.ravel())
    assert rest == b""
