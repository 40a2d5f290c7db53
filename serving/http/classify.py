"""POST /classify: classifies the images of a request."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers

from pdeinfer import Prediction
from serving.engine.models import Models
from serving.engine.served_model import ImageResult, ServedModel
from serving.errors import RequestError
from serving.http.byte_budget import Hold
from serving.http.descriptions import FAILURES, MODEL_PARAMETER, REQUEST_BODY, query_parameter
from serving.http.examples import IMAGE_ERRORS
from serving.http.header_lists import weights
from serving.http.openapi import describe_error, reference
from serving.http.operations import find_model, hold_answer, result, results, to_json
from serving.http.query import QueryParameters
from serving.http.schemas import ClassifyResponse
from serving.http.state import models_of, settings_of
from serving.http.uploads import JSON, Uploads, read_uploads
from serving.interface.answers import encode

PATH = "/classify"
PARAMETERS = QueryParameters(PATH, ("model", "top_k"))
NDJSON = "application/x-ndjson"

_TOP_K = 5

_DESCRIPTION = """\
Send the files of a form, one image as the body, or JSON with base64:

    curl -F file=@seven.png -F file=@two.jpg 'http://127.0.0.1:8000/classify?top_k=3'
    curl --data-binary @seven.png -H 'Content-Type: image/png' http://127.0.0.1:8000/classify

Below the threshold that the server was started with (none by default), `label` and `index` are null; `score` and `top`
are those of the best classes as ever.

An image that cannot be classified has an `error` in its place and does not fail the others. If none of the images can
be classified, the status is that of the first image's error.

With `Accept: application/x-ndjson` the response has one line per image, in order, sent as the images are classified.
Its status is then 200, also if images have errors. A client that names `application/json` with the same weight gets
JSON."""

OPERATION: dict[str, Any] = {
    "tags": ["images"],
    "summary": "Classify images",
    "description": _DESCRIPTION,
    "operationId": "classify_classify_post",
    "parameters": [
        MODEL_PARAMETER,
        query_parameter(
            "top_k",
            "number of classes to return; at most all of them",
            {"type": "integer", "minimum": 1, "default": _TOP_K},
        ),
    ],
    "requestBody": REQUEST_BODY,
    "responses": {
        **FAILURES,
        "200": {
            "description": "One result per image, in order; at least one image was classified",
            "content": {
                JSON: {"schema": reference(ClassifyResponse)},
                NDJSON: {"schema": {"type": "string", "description": "a result per line"}},
            },
        },
        "422": describe_error(
            "None of the images could be classified, or a parameter is wrong",
            *IMAGE_ERRORS,
            RequestError("invalid_parameter", "unknown query parameter 'topk': expected only model, top_k"),
        ),
    },
}
SCHEMAS = (ClassifyResponse,)


async def classify(request: Request, hold: Hold) -> Response:
    """Answer a request, as `OPERATION` describes it."""
    query = PARAMETERS.parse(request)
    top_k = _top_k(query.get("top_k"))
    models = models_of(request)
    served = find_model(models, query.get("model"))
    uploads = await read_uploads(request, hold, settings_of(request).max_images, PARAMETERS)
    if _wants_lines(request.headers):
        lines = _lines(models, served, uploads, top_k)
        first = await anext(lines)  # before the response starts: an error of the request still sets its status
        hold_answer(hold, len(first) * len(uploads.files) // first.count(b"\n"))  # about the length of all lines
        return StreamingResponse(_continued(first, lines), media_type=NDJSON)
    outcomes = await served.classify(uploads.files, top_k, uploads.deadline)

    def answer() -> bytes:
        found = results(served, uploads.names, outcomes, Prediction.to_dict)
        return to_json({"model": served.name, "version": served.version, "results": found})

    content = await encode(models.threads, answer, _count(outcomes, served, top_k), uploads.deadline)
    hold_answer(hold, len(content))
    return Response(content, media_type=JSON)


def _wants_lines(headers: Headers) -> bool:
    """Return whether a client prefers NDJSON; clients that were generated from the OpenAPI document name both."""
    wanted = weights(headers, "accept")
    lines = wanted.get(NDJSON, 0)
    if JSON in wanted:
        return lines > wanted[JSON]
    return 0 < lines >= max(wanted.get("application/*", 0), wanted.get("*/*", 0))


def _top_k(text: str | None) -> int:
    if text is None:
        return _TOP_K
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdecimal()):
        raise RequestError("invalid_parameter", f"top_k: expected a positive integer, got {text[:20]!r}")
    return int(digits[:9])  # no model has that many classes


async def _lines(models: Models, served: ServedModel, uploads: Uploads, top_k: int) -> AsyncIterator[bytes]:
    """Yield the lines of the answer in parts, each when its images are classified."""
    names = iter(uploads.names)

    def encode_part() -> bytes:
        found = (result(served, next(names), outcome, Prediction.to_dict) for outcome in outcomes)
        return b"".join(to_json(each) + b"\n" for each in found)

    async for outcomes in served.stream(uploads.files, top_k, uploads.deadline):
        yield await encode(models.threads, encode_part, _count(outcomes, served, top_k))


async def _continued(first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in lines:
        yield part


def _count(outcomes: Sequence[ImageResult], served: ServedModel, top_k: int) -> int:
    """Return how many classes the results of some images name."""
    return len(outcomes) * min(top_k, len(served.labels))
