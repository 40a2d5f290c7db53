"""Fuzz target: any body and header length of a V2 request are parsed, or refused with a RequestError.

    python -m tests.fuzz.request FOLDER_OF_SEEDS -max_total_time=60

The first byte of an input selects how it is read, the next two are the header length, the rest is the body.
"""

import sys

import atheris

with atheris.instrument_imports(include=["serving", "json"]):
    from serving.errors import RequestError
    from serving.http.compression import inflate
    from serving.http.v2.request import parse_request
    from serving.http.v2.response import encode_response
    from serving.interface.statuses import STATUSES

import numpy as np

from pdeinfer import InputSpec

SPEC = InputSpec(height=2, width=3, channels=1, mean=(0.0,), std=(1.0,))
MAX_IMAGES = 3
MAX_BYTES = 100_000
LABELS = ("a", "b:c", "☂")

# Words that libFuzzer inserts into mutated seeds.
WORDS = (
    *("inputs", "outputs", "id", "name", "image", "probabilities", "datatype", "UINT8", "shape", "data", "parameters"),
    *("binary_data_size", "binary_data_output", "binary_data", "classification"),
    *("[1,2,3,1]", "[[", "]]", "null", "true", "false", "NaN", "1e9", "-1", "256", "{}", '":', "\\ud800"),
)


def seeds() -> list[bytes]:
    """Return inputs to start from: valid requests."""
    json_request = (
        b'{"id":"7","inputs":[{"name":"image","datatype":"UINT8","shape":[1,2,3,1],"data":%s}],'
        b'"parameters":{"a":1.5e3}}'
    )
    binary_request = (
        b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,2,3,1],"parameters":{"binary_data_size":6}}],'
        b'"outputs":[{"name":"probabilities","parameters":{"binary_data":true,"classification":2}}]}'
    )
    return [
        b"\0\0\0" + json_request % b"[0,1,2,253,254,255]",
        b"\0\0\0" + json_request % b"[[[[0],[1],[2]],[[3],[4],[5]]]]",
        b"\1" + len(binary_request).to_bytes(2, "big") + binary_request + bytes(6),
    ]


def parse_any(data: bytes) -> None:
    mode, length, body = data[0] if data else 0, int.from_bytes(data[1:3], "big"), data[3:]
    encoding = ("", "gzip", "deflate", "identity")[mode >> 1 & 3]
    try:
        content = inflate(body, [encoding] if encoding else [], MAX_BYTES)
        request = parse_request(content, str(length) if mode & 1 else None, SPEC, MAX_IMAGES)
    except RequestError as error:
        if STATUSES[error.code] not in (400, 413) or len(str(error)) > 1000:
            raise AssertionError(str(error)) from error
        return
    images = len(request.images)
    assert 1 <= images <= MAX_IMAGES
    assert request.images.shape == (images, 2, 3, 1)
    assert request.images.dtype == np.uint8
    encode_response(request, "model", "1", LABELS, {"probabilities": np.full((images, 3), 1 / 3, np.float32)})


if __name__ == "__main__":
    atheris.Setup(sys.argv, parse_any)
    atheris.Fuzz()
