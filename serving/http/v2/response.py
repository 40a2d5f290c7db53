"""Encodes inference responses of the Open Inference Protocol (V2)."""

import json
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pdeinfer.package.package import OUTPUT_NAME
from serving.http.v2.request import InferenceRequest

OUTPUT_DATATYPE = "FP32"


def encode_response(
    request: InferenceRequest, model: str, version: str, labels: Sequence[str], probabilities: NDArray[np.float32]
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the response to a request.

    Args:
        model, version, labels: of the model that computed the probabilities.
        probabilities: float32 (N, classes).

    Raises:
        ValueError: a probability is NaN or infinite, and the response is JSON.
    """
    output: dict[str, object]
    if request.classification is None:
        output = {"name": OUTPUT_NAME, "datatype": OUTPUT_DATATYPE, "shape": list(probabilities.shape)}
        values: list[float] | list[str] = probabilities.ravel().tolist()
        binary = probabilities.astype("<f4", copy=False).tobytes()
    else:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : request.classification]
        output = {"name": OUTPUT_NAME, "datatype": "BYTES", "shape": list(best.shape)}
        # str() gives the shortest text that reads back as the same float32.
        values = [
            f"{scores[index]!s}:{index}:{labels[index]}"
            for scores, indices in zip(probabilities, best, strict=True)
            for index in indices
        ]
        binary = b"".join(struct.pack("<I", len(text)) + text for text in (value.encode() for value in values))

    if request.binary:
        output["parameters"] = {"binary_data_size": len(binary)}
    else:
        output["data"] = values
    answer: dict[str, object] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()
    if not request.binary:
        return text, {"Content-Type": "application/json"}
    return text + binary, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }
