"""V2 requests, as JSON and as JSON with binary data after it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Request = Callable[..., dict[str, Any]]


@pytest.fixture(scope="package")
def request_object() -> Request:
    """Return the JSON object of a request for uint8 pixels (N, H, W, C), with further or other fields."""

    def build(pixels: np.ndarray, tensor: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        shape = list(pixels.shape)
        tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": pixels.tolist(), **(tensor or {})}
        return {"inputs": [{key: value for key, value in tensor.items() if value is not ...}], **fields}

    return build


@pytest.fixture(scope="package")
def binary_request(request_object: Request) -> Callable[..., tuple[bytes, str]]:
    """Return the body and the header length of a request that sends its pixels as binary data."""

    def build(pixels: np.ndarray, **fields: Any) -> tuple[bytes, str]:
        tensor = {"data": ..., "parameters": {"binary_data_size": pixels.size}}
        text = json.dumps(request_object(pixels, tensor, **fields)).encode()
        return text + pixels.tobytes(), str(len(text))

    return build
