"""Writes inference responses."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.grpc.messages import ModelInferResponse
from serving.interface.tensors import BYTES, NUMBERS, InferenceRequest, best_classes, join


def encode_response(
    request: InferenceRequest,
    model: str,
    version: str,
    labels: Sequence[str],
    results: Mapping[str, NDArray[np.float32]],
) -> bytes:
    """Return the serialized ModelInferResponse to a request.

    Args:
        model, version, labels: of the model that computed the results.
        results: every requested output, float32 (N, ...), by name.
    """
    response = ModelInferResponse(model_name=model, model_version=version, id=request.id)
    for requested in request.outputs:
        rows = results[requested.name]
        output = response.outputs.add(name=requested.name)
        if requested.classification is None:
            output.datatype = NUMBERS
            output.shape.extend(rows.shape)
            if requested.binary:
                response.raw_output_contents.append(rows.astype("<f4", copy=False).tobytes())
            else:
                output.contents.fp32_contents.extend(rows.ravel().tolist())
            continue
        texts, shape = best_classes(rows, labels, requested.classification)
        encoded = [text.encode() for text in texts]
        output.datatype = BYTES
        output.shape.extend(shape)
        if requested.binary:
            response.raw_output_contents.append(join(encoded))
        else:
            output.contents.bytes_contents.extend(encoded)
    answer: bytes = response.SerializeToString()
    return answer
