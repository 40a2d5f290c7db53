"""Encodes inference responses of the Open Inference Protocol (V2)."""

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.http.v2.request import InferenceRequest, RequestedOutput

OUTPUT_DATATYPE = "FP32"


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
        output, values, content = _encode(requested, labels, results[requested.name])
        if requested.binary:
            output["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            output["data"] = values
        outputs.append(output)
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
) -> tuple[dict[str, object], list[float] | list[str], bytes]:
    """Return the description of an output, its values, and the same as binary data."""
    if requested.classification is None:
        output: dict[str, object] = {"name": requested.name, "datatype": OUTPUT_DATATYPE, "shape": list(rows.shape)}
        return output, rows.ravel().tolist(), rows.astype("<f4", copy=False).tobytes()
    best = np.argsort(-rows, axis=1, kind="stable")[:, : requested.classification]
    # str() gives the shortest text that reads back as the same float32.
    values = [
        f"{scores[index]!s}:{index}:{labels[index]}"
        for scores, indices in zip(rows, best, strict=True)
        for index in indices
    ]
    binary = b"".join(struct.pack("<I", len(text)) + text for text in (value.encode() for value in values))
    return {"name": requested.name, "datatype": "BYTES", "shape": list(best.shape)}, values, binary
