"""POST /classify: classifies the images of a request."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pydantic_core
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from pdeinfer import Prediction
from pdeinfer.images.formats import EXPECTED
from serving.engine.models import Models
from serving.engine.served_model import Outcome, ServedModel
from serving.errors import DeadlineError, InferenceError, NotReadyError, OverloadedError
from serving.http.byte_budget import Hold
from serving.http.errors import ApiError, code_of
from serving.http.openapi import error_answer, reference
from serving.http.query import parse_query
from serving.http.schemas import PARAMETERS, Base64Image, ClassifyResponse
from serving.http.state import models_of, settings_of
from serving.http.uploads import read_uploads

PATH = "/classify"
NDJSON = "application/x-ndjson"

_TOP_K = 5
_MAX_MODEL_NAME = 200

_DESCRIPTION = """\
Send the files of a form, one image as the body, or JSON with base64:

    curl -F file=@seven.png -F file=@two.jpg 'http://127.0.0.1:8000/classify?top_k=3'
    curl --data-binary @seven.png -H 'Content-Type: image/png' http://127.0.0.1:8000/classify

Below the threshold that the server was started with (none by default), `label` and `index` are null; `score` and `top`
are those of the best classes as ever.

An image that cannot be classified has an `error` in its place and does not fail the others. If none of the images can
be classified, the status is that of the first image's error.

With `Accept: application/x-ndjson` the response has one line per image, in order, sent as the images are classified.
Its status is then 200, also if images have errors."""

IMAGE_ERRORS = (
    ("invalid_image", f"notes.txt: expected {EXPECTED}, got a file of no known image format"),
    ("image_too_large", "map.png: expected at most 64000000 pixels, got 30000 x 30000"),
    ("image_too_costly", "map.png: decoding it took more than 5 s of CPU time: save it again as a PNG"),
)
MODEL_PARAMETER = {
    "name": "model",
    "in": "query",
    "required": False,
    "description": "a name from /models; by default, the first",
    "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_MODEL_NAME},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY = {
    "required": True,
    "description": "One or many images: as the files of a form, under any field name; as JSON; or one image's bytes.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "description": "the images, in the order of the results",
                    }
                },
                "required": ["file"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"anyOf": [Base64Image.model_json_schema(), {"type": "string"}]},
                        "minItems": 1,
                    },
                    # Refused in the body.
                    **dict.fromkeys(PARAMETERS, False),
                },
                "required": ["images"],
            }
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}

OPERATION: dict[str, Any] = {
    "tags": ["images"],
    "summary": "Classify images",
    "description": _DESCRIPTION,
    "operationId": "classify_classify_post",
    "parameters": [
        MODEL_PARAMETER,
        {
            "name": "top_k",
            "in": "query",
            "required": False,
            "description": "number of classes to return; at most all of them",
            "schema": {"type": "integer", "minimum": 1, "default": _TOP_K},
        },
    ],
    "requestBody": REQUEST_BODY,
    "responses": {
        "200": {
            "description": "One result per image, in order; at least one image was classified",
            "content": {
                "application/json": {"schema": reference(ClassifyResponse)},
                NDJSON: {"schema": {"type": "string", "description": "a result per line"}},
            },
        },
        "400": error_answer(
            "The body is malformed or holds no images",
            ("invalid_form", "the form ends before its closing boundary"),
            ("invalid_json", "images.0.content: Field required"),
            ("invalid_compression", "the gzip data of the body is cut off"),
            ("no_images", "the form holds no image: send each as a file, like curl -F file=@seven.png"),
        ),
        "404": error_answer(
            "No such model", ("model_not_found", "no model 'digits' is served, only: digits-pde, mnist-pde")
        ),
        "408": error_answer(
            "The body took too long", ("body_timeout", "the body of a request must be sent within 60 seconds")
        ),
        "413": error_answer(
            "The body is too large or holds too many images",
            ("body_too_large", "a request body may have at most 33554432 bytes"),
            ("too_many_images", "a request may hold at most 64 images"),
            ("json_too_large", "expected at most 2048 values of JSON, for 64 images"),
        ),
        "415": error_answer(
            "Neither a form, nor JSON, nor an image",
            (
                "unsupported_media_type",
                "expected the content type multipart/form-data, application/json, image/* or application/octet-stream, "
                "got text/plain",
            ),
            ("unsupported_content_encoding", "expected the content encoding gzip or deflate, got 'br'"),
        ),
        "422": error_answer(
            "None of the images could be classified, or a parameter is wrong",
            *IMAGE_ERRORS,
            ("invalid_parameter", "unknown query parameter 'topk': expected only model and top_k"),
        ),
        "500": error_answer(
            "The server or the network failed",
            ("internal_error", "the server failed to answer; its log has the details"),
            (InferenceError.code, str(InferenceError())),
        ),
        "503": error_answer(
            "The server is at capacity: Retry-After says when to try again. Or it serves no model",
            (OverloadedError.code, str(OverloadedError())),
            (NotReadyError.code, str(NotReadyError())),
        ),
        "504": error_answer("The request ran out of time", (DeadlineError.code, str(DeadlineError()))),
    },
}
SCHEMAS = (ClassifyResponse,)


async def classify(request: Request, hold: Hold) -> Response:
    """Answer a request, as `OPERATION` describes it."""
    query = parse_query(request, *PARAMETERS)
    top_k = _top_k(query.get("top_k"))
    served = find_model(models_of(request), query.get("model"))
    uploads = await read_uploads(request, hold, settings_of(request).max_images)
    if NDJSON in request.headers.get("accept", ""):
        parts = served.stream(uploads.files, top_k, uploads.deadline)
        first = await anext(parts)  # before the response starts: an error of the request still sets its status
        return StreamingResponse(_lines(uploads.names, first, parts), media_type=NDJSON)
    outcomes = await served.classify(uploads.files, top_k, uploads.deadline)
    if not any(isinstance(outcome, Prediction) for outcome in outcomes) and isinstance(outcomes[0], Exception):
        raise ApiError(code_of(outcomes[0]), str(outcomes[0]))
    results = [_result(name, outcome) for name, outcome in zip(uploads.names, outcomes, strict=True)]
    content = {"model": served.name, "version": served.version, "results": results}
    return Response(to_json(content), media_type="application/json")


def _top_k(text: str | None) -> int:
    if text is None:
        return _TOP_K
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdecimal()):
        raise ApiError("invalid_parameter", f"top_k: expected a positive integer, got {text[:20]!r}")
    return int(digits[:9])  # no model has that many classes


def find_model(models: Models, name: str | None) -> ServedModel:
    """Return the model that the query parameter `model` names; by default, the first.

    Raises:
        ModelNotServedError, NotReadyError, ApiError: no such model is served, none at all, or it is not a name.
    """
    if name is None:
        name = models.default
        if name is None:
            raise NotReadyError
    if not 1 <= len(name) <= _MAX_MODEL_NAME:
        message = f"model: expected a name of 1 to {_MAX_MODEL_NAME} characters, got {len(name)} characters"
        raise ApiError("invalid_parameter", message)
    return models.get(name)


async def _lines(
    names: Sequence[str | None], first: list[Outcome], parts: AsyncIterator[list[Outcome]]
) -> AsyncIterator[bytes]:
    remaining = iter(names)
    outcomes: list[Outcome] | None = first
    while outcomes is not None:
        yield b"".join(to_json(_result(next(remaining), outcome)) + b"\n" for outcome in outcomes)
        outcomes = await anext(parts, None)


def _result(name: str | None, outcome: Outcome) -> dict[str, Any]:
    """Return a Classification or an ImageFailure as JSON values: building models of pydantic would only cost time."""
    if isinstance(outcome, Prediction):
        return {"filename": name, **outcome.to_dict()}
    return {"filename": name, "error": {"code": code_of(outcome), "message": str(outcome)}}


def to_json(value: object) -> bytes:
    """Return JSON without spaces; its numbers must be finite."""
    try:
        return pydantic_core.to_json(value)
    except pydantic_core.PydanticSerializationError:  # a label with half a surrogate pair, which UTF-8 lacks
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
