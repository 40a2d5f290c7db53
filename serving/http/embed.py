"""POST /embed: returns the features of the images of a request."""

from typing import Any

import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from pdeinfer.package.package import FEATURES_NAME
from serving.errors import NoFeaturesError, RequestError
from serving.http.byte_budget import Hold
from serving.http.descriptions import FAILURES, MODEL_PARAMETER, REQUEST_BODY
from serving.http.examples import IMAGE_ERRORS
from serving.http.openapi import describe_error, reference
from serving.http.operations import find_model, hold_answer, results, to_json
from serving.http.query import QueryParameters
from serving.http.schemas import EmbedResponse
from serving.http.state import models_of, settings_of
from serving.http.uploads import read_uploads
from serving.interface.answers import encode

PATH = "/embed"
PARAMETERS = QueryParameters(PATH, ("model",))

_DESCRIPTION = """\
Send images as for /classify. The answer holds, for each image, the numbers that the network's last layer takes:

    curl -F file=@seven.png -F file=@two.jpg http://127.0.0.1:8000/embed

Similar images have similar features. An image that cannot be read has an `error` in its place; if none can, the status
is that of the first image's error. A package that an earlier version exported has no features."""

OPERATION: dict[str, Any] = {
    "tags": ["images"],
    "summary": "Features of images",
    "description": _DESCRIPTION,
    "operationId": "embed_embed_post",
    "parameters": [MODEL_PARAMETER],
    "requestBody": REQUEST_BODY,
    "responses": {
        **FAILURES,
        "200": {
            "description": "One result per image, in order; at least one image was read",
            "content": {"application/json": {"schema": reference(EmbedResponse)}},
        },
        "422": describe_error(
            "None of the images could be read, a parameter is wrong, or the model has no features",
            *IMAGE_ERRORS,
            RequestError("invalid_parameter", "unknown query parameter 'top_k': expected only model"),
            NoFeaturesError("digits-pde"),
        ),
    },
}
SCHEMAS = (EmbedResponse,)


async def embed(request: Request, hold: Hold) -> Response:
    """Answer a request, as `OPERATION` describes it."""
    query = PARAMETERS.parse(request)
    models = models_of(request)
    served = find_model(models, query.get("model"))
    uploads = await read_uploads(request, hold, settings_of(request).max_images, PARAMETERS)
    outcomes = await served.embed(uploads.files, uploads.deadline)

    def answer() -> bytes:
        found = results(served, uploads.names, outcomes, _to_dict)
        return to_json({"model": served.name, "version": served.version, "results": found})

    content = await encode(models.threads, answer, len(outcomes) * served.outputs[FEATURES_NAME], uploads.deadline)
    hold_answer(hold, len(content))
    return Response(content, media_type="application/json")


def _to_dict(features: NDArray[np.float32]) -> dict[str, Any]:
    return {"features": features.tolist()}
