"""Encodes inference responses of the Open Inference Protocol (V2)."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.interface.tensors import BYTES, NUMBERS, InferenceRequest, RequestedOutput, best_classes, join


def encode_response(
    request: InferenceRequest,
    model: str,
    version: str,
    labels: Sequence[str],
    results: Mapping[str, NDArray[np.float32]],
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the response to a request.

    Args:
        model, version, labels: of the model that computed the results.
        results: every requested output, float32 (N, ...), by name.

    Raises:
        ValueError: a number is NaN or infinite, and the response is JSON.
    """
    outputs, binary = [], b""
    for requested in request.outputs:
        output, content = _encode(requested, labels, results[requested.name])
        outputs.append(output)
        binary += content
    answer: dict[str, object] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    if not any(requested.binary for requested in request.outputs):
        return text, {"Content-Type": "application/json"}
    return text + binary, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }


def _encode(
    requested: RequestedOutput, labels: Sequence[str], rows: NDArray[np.float32]
) -> tuple[dict[str, object], bytes]:
    """Return the JSON of an output, and its binary data if it is requested as such."""
    if requested.classification is None:
        output: dict[str, object] = {"name": requested.name, "datatype": NUMBERS, "shape": list(rows.shape)}
        if not requested.binary:
            return {**output, "data": rows.ravel().tolist()}, b""
        content = rows.astype("<f4", copy=False).tobytes()
    else:
        texts, shape = best_classes(rows, labels, requested.classification)
        output = {"name": requested.name, "datatype": BYTES, "shape": shape}
        if not requested.binary:
            return {**output, "data": texts}, b""
        content = join(text.encode() for text in texts)
    return {**output, "parameters": {"binary_data_size": len(content)}}, content
