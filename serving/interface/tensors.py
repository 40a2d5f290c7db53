"""What the Open Inference Protocol (V2) says about tensors, over REST and over gRPC."""

import math
import reprlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer import InputSpec
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from serving.errors import RequestError

PIXELS = "UINT8"  # the datatype of pixels of the model's own size
BYTES = "BYTES"  # the datatype of encoded images, and of classes as texts
NUMBERS = "FP32"  # the datatype of the network's outputs
SHARED_MEMORY = "shared_memory_region"  # the parameter of a tensor that Triton's clients put there

# Pixels, uint8 (N, H, W, C), read-only; or the files of N encoded images.
Images: TypeAlias = NDArray[np.uint8] | list[bytes]

_ID_BYTES = 16 * 2**10  # HTTP cuts a string of this length out of its JSON

_shortened = reprlib.Repr()  # quotes only the beginning of large values
_shortened.maxlevel = 2


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the response must have.

    Attributes:
        name: "probabilities" or "features".
        binary: whether it is binary data.
        classification: number of classes to return for each image; None: all numbers.
    """

    name: str
    binary: bool
    classification: int | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A parsed request.

    Attributes:
        id: to be returned in the response.
        outputs: at least one, no two of a name.
    """

    id: str | None
    images: Images
    outputs: tuple[RequestedOutput, ...]


def refusal(what: str, expected: str, got: object) -> RequestError:
    """Return the error for a part of a request that is not as expected: `got` is quoted, shortened."""
    return RequestError("invalid_request", f"{what}: expected {expected}, got {shortened(got)}")


def shortened(value: object) -> str:
    """Return the beginning of a value's repr."""
    return _shortened.repr(value)


def require_short_id(request_id: bytes | memoryview) -> None:
    """Raise RequestError if the id of a request is long: the answer repeats it."""
    if len(request_id) >= _ID_BYTES:
        raise RequestError("invalid_request", f"id: expected fewer than {_ID_BYTES} bytes")


def require_known(names: Sequence[object], field: str, known: Sequence[str]) -> None:
    """Raise RequestError unless each of `names` is one of `known` and none comes twice."""
    for index, name in enumerate(names):
        if type(name) is not str or name not in known:
            raise refusal(f"the name in {field}", " or ".join(map(repr, known)), name)
        if name in names[:index]:
            raise refusal(f"the names in {field}", "no name twice", name)


def require_no_shared_memory(parameters: Mapping[str, object], what: str) -> None:
    """Raise RequestError if the parameters say that a tensor is in shared memory."""
    if parameters.get(SHARED_MEMORY) is not None:
        message = f"{SHARED_MEMORY} of {what}: shared memory is not supported: send the data in the request"
        raise RequestError("invalid_request", message)


def require_input(datatype: object, shape: object, spec: InputSpec, max_images: int) -> None:
    """Raise RequestError unless the input has a datatype that the server takes, and the shape for it.

    Args:
        shape: a list of numbers, or anything else that JSON can hold.
        spec: the images that the model takes.
        max_images: the most images of one request.
    """
    if datatype not in (PIXELS, BYTES):
        raise refusal(f"the datatype of {INPUT_NAME!r}", f"{PIXELS} or {BYTES}", datatype)
    image = (spec.height, spec.width, spec.channels) if datatype == PIXELS else ()
    if (
        type(shape) is not list
        or not shape
        or any(type(size) is not int for size in shape)
        or (tuple(shape[1:]) != image and not (datatype == BYTES and shape[1:] == [1]))
        or not 1 <= shape[0] <= max_images
    ):
        expected = f"[{', '.join(map(str, ('N', *image)))}] with N from 1 to {max_images}"
        raise refusal(f"the shape of {INPUT_NAME!r}", expected, shape)


def requested_output(name: str, binary: bool, classification: object) -> RequestedOutput:
    """Return an output that the response must have.

    Raises:
        RequestError: `classification` is given and not a positive integer, or the output has no classes.
    """
    if classification is None:
        return RequestedOutput(name, binary)
    if name != OUTPUT_NAME:
        raise refusal(f"classification of {name!r}", "none", classification)
    if type(classification) is not int or classification < 1:
        raise refusal("classification", "a positive integer", classification)
    return RequestedOutput(name, binary, classification)


def read_binary(content: bytes | memoryview, datatype: str, shape: Sequence[int]) -> Images:
    """Return the images of an input that was sent as binary data, without copying pixels.

    Raises:
        RequestError: the content has not the size that the shape says.
    """
    if datatype == BYTES:
        return list(_split(memoryview(content), math.prod(shape)))
    size = math.prod(shape)
    if len(content) != size:
        raise refusal(
            "the binary data", f"{size} bytes, of shape {list(shape)} and {datatype}", f"{len(content)} bytes"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _split(content: memoryview, count: int) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor: each comes after its length, 4 bytes, little endian."""
    position = 0
    for _ in range(count):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "little")
        if start > len(content) or position > len(content):
            break
        yield bytes(content[start:position])
    else:
        if position == len(content):
            return
    raise RequestError(
        "invalid_request",
        f"the binary data of {INPUT_NAME!r}: expected {count} images, each after its length in 4 bytes, little endian",
    )


def join(elements: Iterable[bytes]) -> bytes:
    """Return the binary data of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def best_classes(rows: NDArray[np.float32], labels: Sequence[str], count: int) -> tuple[list[str], list[int]]:
    """Return the best classes of each image as texts "probability:index:label", best first, and their shape."""
    best = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    # str() gives the shortest text that reads back as the same float32.
    texts = [
        f"{scores[index]!s}:{index}:{labels[index]}"
        for scores, indices in zip(rows, best, strict=True)
        for index in indices
    ]
    return texts, list(best.shape)
