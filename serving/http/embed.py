"""POST /embed: returns the features of the images of a request."""

from typing import Any

import numpy as np
from fastapi import Request, Response

from serving.engine.deadline import until
from serving.engine.served_model import Features
from serving.errors import NoFeaturesError
from serving.http.body import read_body
from serving.http.byte_budget import Hold
from serving.http.classify import MODEL_PARAMETER, find_model, to_json
from serving.http.classify import OPERATION as CLASSIFY
from serving.http.errors import ApiError, code_of
from serving.http.openapi import error_answer, reference
from serving.http.query import parse_query
from serving.http.schemas import EmbedResponse
from serving.http.state import models_of, settings_of
from serving.http.uploads import media_type, parse_uploads

PATH = "/embed"

_DESCRIPTION = """\
Send images as for /classify. The answer holds, for each image, the numbers that the network's last layer takes:

    curl -F file=@seven.png -F file=@two.jpg http://127.0.0.1:8000/embed

Similar images have similar features. An image that cannot be read has an `error` in its place; if none can, the status
is that of the first image's error. A package that an earlier version exported has no features."""

_RESPONSES = CLASSIFY["responses"]

OPERATION: dict[str, Any] = {
    "tags": ["images"],
    "summary": "Features of images",
    "description": _DESCRIPTION,
    "operationId": "embed_embed_post",
    "parameters": [MODEL_PARAMETER],
    "requestBody": CLASSIFY["requestBody"],
    "responses": {
        **_RESPONSES,
        "200": {
            "description": "One result per image, in order; at least one image was read",
            "content": {"application/json": {"schema": reference(EmbedResponse)}},
        },
        "422": error_answer(
            "None of the images could be read, a parameter is wrong, or the model has no features",
            ("invalid_image", "notes.txt: expected a BMP, GIF, JPEG or PNG image, got a file of no known image format"),
            ("image_too_large", "map.png: expected at most 64000000 pixels, got 30000 x 30000"),
            ("invalid_parameter", "unknown query parameter 'top_k': expected only model"),
            (NoFeaturesError.code, str(NoFeaturesError("digits-pde"))),
        ),
    },
}
SCHEMAS = (EmbedResponse,)


async def embed(request: Request, hold: Hold) -> Response:
    """Answer a request, as `OPERATION` describes it."""
    query = parse_query(request, "model")
    models, settings = models_of(request), settings_of(request)
    served = find_model(models, query.get("model"))
    content_type = media_type(request)  # before the body is read
    body, deadline = await read_body(request, hold)
    parsing = parse_uploads(body, content_type, settings.max_images, models.threads)
    del body  # a form's or JSON's is free once it is parsed
    uploads = await until(deadline, parsing)
    names = [name for name, _ in uploads]
    files = [(name or f"image {number}", content) for number, (name, content) in enumerate(uploads, 1)]
    del uploads
    outcomes = await served.embed(files, deadline)
    if not any(isinstance(outcome, np.ndarray) for outcome in outcomes) and isinstance(outcomes[0], Exception):
        raise ApiError(code_of(outcomes[0]), str(outcomes[0]))
    results = [_result(name, outcome) for name, outcome in zip(names, outcomes, strict=True)]
    answer = to_json({"model": served.name, "version": served.version, "results": results})
    hold(len(answer))  # a client that reads slowly keeps it in memory
    return Response(answer, media_type="application/json")


def _result(name: str | None, outcome: Features) -> dict[str, Any]:
    if isinstance(outcome, np.ndarray):
        return {"filename": name, "features": outcome.tolist()}
    return {"filename": name, "error": {"code": code_of(outcome), "message": str(outcome)}}
