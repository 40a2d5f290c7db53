"""What the server answers: images classified, models described, health."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from pdeinfer import ImageError, ImageTooLargeError, Prediction
from serving.engine.deadline import until
from serving.engine.models import Models
from serving.engine.served_model import Outcome, ServedModel
from serving.errors import ApiError
from serving.http.direct import DirectRoute, query_arguments
from serving.http.schemas import (
    ClassifyResponse,
    ErrorResponse,
    Health,
    ModelInfo,
    ModelInput,
    ModelList,
)
from serving.http.uploads import REQUEST_BODY, Upload, media_type, read_uploads
from serving.telemetry import metrics

router = APIRouter()


def error_example(description: str, *examples: tuple[str, str]) -> dict[str, Any]:
    """Return an error answer for the OpenAPI document, with examples of (code, message)."""
    values = {code: {"value": {"error": {"code": code, "message": message}}} for code, message in examples}
    return {
        "model": ErrorResponse,
        "description": description,
        "content": {"application/json": {"examples": values}},
    }


NDJSON = "application/x-ndjson"

_NOT_READY = "no model is served, or the server is stopping"
_INTERNAL = error_example(
    "The server failed", ("internal_error", "the server failed to answer; its log has the details")
)
_CLASSIFY_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string", "description": "a result per line"}}}},
    400: error_example(
        "The body is broken or holds no images",
        ("invalid_form", "Missing boundary in multipart."),
        ("invalid_json", "images.0.content: Field required"),
        ("invalid_compression", "the gzip data of the body is cut off"),
        ("no_images", "the form holds no files: send each image as a file of the form"),
    ),
    404: error_example(
        "No such model", ("model_not_found", "no model 'digits' is served, only: digits-pde, mnist-pde")
    ),
    408: error_example(
        "The body took too long", ("body_timeout", "the body of a request must be sent within 60 seconds")
    ),
    413: error_example(
        "The body is too large or holds too many images",
        ("body_too_large", "a request body may have at most 33554432 bytes"),
        ("too_many_images", "a request may hold at most 64 images"),
        ("json_too_large", "expected at most 2048 values of JSON, for 64 images"),
    ),
    415: error_example(
        "Neither a form, nor JSON, nor an image",
        (
            "unsupported_media_type",
            "expected the content type multipart/form-data, application/json, image/* or application/octet-stream, "
            "got text/plain",
        ),
        ("unsupported_content_encoding", "expected the content encoding gzip or deflate, got 'br'"),
    ),
    422: error_example(
        "None of the images could be classified, or a parameter is wrong",
        ("invalid_image", "notes.txt: expected a PNG or JPEG image, got another file"),
        ("image_too_large", "map.png: expected at most 16000000 pixels, got 30000 x 30000"),
        ("invalid_parameter", "top_k: Input should be greater than or equal to 1"),
    ),
    500: _INTERNAL,
    503: error_example(
        "As many images as the queue may hold are being worked on; Retry-After says when to try again",
        ("overloaded", "the server is at capacity: try again later"),
        ("not_ready", _NOT_READY),
    ),
    504: error_example("No time was left", ("deadline_exceeded", "the images could not be classified in time")),
}


@router.post(
    "/classify",
    summary="Classify images",
    response_model=ClassifyResponse,
    response_description="One result per image, in order; at least one image was classified",
    responses=_CLASSIFY_ANSWERS,
    openapi_extra={"requestBody": REQUEST_BODY},
    tags=["images"],
)
async def classify(
    request: Request,
    model: Annotated[
        str | None, Query(max_length=200, description="a name from /models; by default, the first")
    ] = None,
    top_k: Annotated[int, Query(ge=1, description="how many classes to name; at most all of them")] = 5,
) -> Response:
    """Send the files of a form, or one image as the body:

        curl -F file=@seven.png -F file=@two.jpg 'http://127.0.0.1:8000/classify?top_k=3'
        curl --data-binary @seven.png -H 'Content-Type: image/png' http://127.0.0.1:8000/classify

    An image that cannot be classified has an `error` in its place and does not fail the others. Where that is so of
    every image, the answer is 422 with the error of the first.

    With `Accept: application/x-ndjson` the answer is one line per image, in order, sent as they are classified: it is
    200, whatever comes of the images.
    """
    served = _find_model(_models(request), model)
    settings = request.app.state.settings
    media_type(request)  # before the body is read
    body = b"".join([chunk async for chunk in request.stream()])  # Request.body would keep it until the answer is sent
    deadline = asyncio.get_running_loop().time() + settings.request_timeout
    reading = read_uploads(request, body, settings, _models(request).threads)
    del body
    uploads = await until(deadline, reading)
    if NDJSON in request.headers.get("accept", ""):
        parts = served.stream(uploads, top_k, deadline)
        first = await anext(parts)  # now, as long as the status can tell what is wrong
        return StreamingResponse(_lines(uploads, first, parts), media_type=NDJSON)
    outcomes = await served.classify(uploads, top_k, deadline)
    if not isinstance(outcomes[0], Prediction) and not any(isinstance(outcome, Prediction) for outcome in outcomes):
        raise _api_error(outcomes[0])
    results = [_result(upload, outcome) for upload, outcome in zip(uploads, outcomes, strict=True)]
    content = {"model": served.name, "version": served.version, "results": results}
    return Response(_to_json(content), media_type="application/json")


DIRECT = DirectRoute("/classify", "/classify", query_arguments, classify)


@router.get("/models", summary="The served models", responses={500: _INTERNAL}, tags=["models"])
async def models(request: Request) -> ModelList:
    served = _models(request)
    return ModelList(default=served.default, models=[_model_info(model) for model in served])


@router.get(
    "/metrics",
    summary="What Prometheus reads",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
    tags=["health"],
)
def read_metrics() -> Response:  # in a thread: with several workers it reads files
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)


@router.get("/healthz", summary="The server is alive", tags=["health"])
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="Models are served, and the server is not stopping",
    responses={503: error_example("Send requests elsewhere", ("not_ready", _NOT_READY))},
    tags=["health"],
)
async def readyz(request: Request) -> Health:
    if not _models(request).ready:
        raise ApiError(503, "not_ready", _NOT_READY)
    return Health()


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


def _find_model(models: Models, name: str | None) -> ServedModel:
    name = name or models.default
    if name is None:
        raise ApiError(503, "not_ready", _NOT_READY)
    return models.get(name)


async def _lines(
    uploads: Sequence[Upload], first: list[Outcome], parts: AsyncIterator[list[Outcome]]
) -> AsyncIterator[str]:
    remaining = iter(uploads)
    outcomes: list[Outcome] | None = first
    while outcomes is not None:
        yield "".join(_to_json(_result(next(remaining), outcome)) + "\n" for outcome in outcomes)
        outcomes = await anext(parts, None)


def _result(upload: Upload, outcome: Outcome) -> dict[str, Any]:
    """Return a Classification or an ImageFailure as JSON values: models of pydantic would be made to be taken apart."""
    if isinstance(outcome, Prediction):
        return {"filename": upload.filename, **outcome.to_dict()}
    error = _api_error(outcome)
    return {"filename": upload.filename, "error": {"code": error.code, "message": error.message}}


def _to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _api_error(error: ImageError | ApiError) -> ApiError:
    if isinstance(error, ImageError):
        code = "image_too_large" if isinstance(error, ImageTooLargeError) else "invalid_image"
        return ApiError(422, code, str(error))
    return error


def _model_info(model: ServedModel) -> ModelInfo:
    info, spec = model.info, model.spec
    return ModelInfo(
        name=model.name,
        version=model.version,
        labels=model.labels,
        input=ModelInput(height=spec.height, width=spec.width, channels=spec.channels, fit=spec.fit),
        parameters=info.parameters,
        metrics=model.card.metrics,
        precision=info.precision,
        device=info.device,
        provider=info.provider,
    )
