"""The routes of the Open Inference Protocol (V2)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from pdeinfer import __version__
from pdeinfer.package.package import INPUT_NAME, OUTPUT_NAME
from serving.engine.deadline import until
from serving.engine.models import Models
from serving.engine.served_model import ServedModel
from serving.errors import ApiError
from serving.http.direct import DirectRoute
from serving.http.v2.request import INPUT_DATATYPE, InferenceRequest, parse_request
from serving.http.v2.response import OUTPUT_DATATYPE, encode_response
from serving.http.v2.schemas import (
    REQUEST_BODY,
    InferenceResponse,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorConfig,
    TensorMetadata,
    V2Error,
)
from serving.middleware.compression import accepted_encoding, compress, inflated_body
from serving.settings import Settings

# A body up to this many bytes is parsed at once, a larger one in another thread, where it does not hold up others.
PARSED_AT_ONCE = 32 * 2**10
# Smaller answers are sent as they are: compressed they would hardly be shorter.
COMPRESSED_FROM = 1024

Name = Annotated[str, Path(description="a name from /models", examples=["digits-pde"])]
Version = Annotated[str, Path(description="one of the model's versions", examples=["1"])]


def _error(description: str, *messages: str) -> dict[str, Any]:
    """Return an error answer for the OpenAPI document, with examples of its message."""
    examples = {f"{number}": {"value": {"error": message}} for number, message in enumerate(messages, 1)}
    return {"model": V2Error, "description": description, "content": {"application/json": {"examples": examples}}}


_NOT_READY = "no model is served, or the server is stopping"
_DEFAULT: dict[int | str, dict[str, Any]] = {"default": {"model": V2Error, "description": "Every other answer"}}
_NOT_FOUND = _error("No such model or version", "no model 'digits' is served, only: digits-pde, mnist-pde")
_INFER_ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error(
        "The request is wrong",
        "the datatype of 'image': expected UINT8, got 'FP32'",
        "the data of 'image': expected integers from 0 to 255, got 256",
    ),
    404: _NOT_FOUND,
    413: _error("The body is too large", "a request body may have at most 33554432 bytes"),
    415: _error("Another content encoding", "expected the content encoding gzip or deflate, got 'br'"),
    500: _error("The server failed", "the server failed to answer; its log has the details"),
    503: _error("The queue is full: Retry-After says when to try again", "the server is at capacity: try again later"),
    504: _error("No time was left", "the images could not be classified in time"),
    **_DEFAULT,
}

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol (V2)"])


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


async def _highest_version(request: Request, model: Name) -> ServedModel:
    return _models(request).get(model)


async def _exact_version(request: Request, model: Name, version: Version) -> ServedModel:
    return _models(request).get(model, version)


@router.get("", summary="The server", responses=_DEFAULT)
@router.get("/", include_in_schema=False)
async def server_metadata() -> ServerMetadata:
    return ServerMetadata(version=__version__)


@router.get("/health/live", summary="The server is alive", responses=_DEFAULT)
async def server_live() -> ServerLive:
    return ServerLive()


@router.get(
    "/health/ready",
    summary="Models are served, and the server is not stopping",
    responses={503: _error("Send requests elsewhere", _NOT_READY), **_DEFAULT},
)
async def server_ready(request: Request) -> ServerReady:
    if not _models(request).ready:
        raise ApiError(503, "not_ready", _NOT_READY)
    return ServerReady()


def _model_routes(prefix: str, find: Callable[..., Awaitable[ServedModel]]) -> APIRouter:
    """Return the routes of a model that the path names and `find` finds."""
    routes = APIRouter(prefix=prefix)
    not_found: dict[int | str, dict[str, Any]] = {404: _NOT_FOUND, **_DEFAULT}

    @routes.get("", summary="A model's inputs and outputs", responses=not_found)
    async def model_metadata(request: Request, served: Annotated[ServedModel, Depends(find)]) -> ModelMetadata:
        spec = served.spec
        return ModelMetadata(
            name=served.name,
            versions=_models(request).versions(served.name),
            inputs=(
                TensorMetadata(
                    name=INPUT_NAME, datatype=INPUT_DATATYPE, shape=(-1, spec.height, spec.width, spec.channels)
                ),
            ),
            outputs=(TensorMetadata(name=OUTPUT_NAME, datatype=OUTPUT_DATATYPE, shape=(-1, len(served.labels))),),
        )

    @routes.get("/ready", summary="A model is served", responses=not_found)
    async def model_ready(served: Annotated[ServedModel, Depends(find)]) -> ModelReady:
        return ModelReady(name=served.name)

    @routes.get("/config", summary="A model's configuration, as Triton describes it", responses=not_found)
    async def model_configuration(
        request: Request, served: Annotated[ServedModel, Depends(find)]
    ) -> ModelConfiguration:
        spec, settings = served.spec, request.app.state.settings
        image = (spec.height, spec.width, spec.channels)
        return ModelConfiguration(
            name=served.name,
            max_batch_size=settings.max_images,
            input=(TensorConfig(name=INPUT_NAME, data_type=f"TYPE_{INPUT_DATATYPE}", dims=image),),
            output=(TensorConfig(name=OUTPUT_NAME, data_type=f"TYPE_{OUTPUT_DATATYPE}", dims=(len(served.labels),)),),
        )

    @routes.post(
        "/infer",
        summary="Classify pixels",
        response_class=Response,
        responses={200: {"model": InferenceResponse, "description": "One row for each image"}, **_INFER_ERRORS},
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def infer(request: Request, served: Annotated[ServedModel, Depends(find)]) -> Response:
        """Send the pixels of images that have the model's own size, as JSON or as binary data behind the JSON:

            curl http://127.0.0.1:8000/v2/models/digits-pde/infer -d \\
              '{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0, ..., 255]}]}'

        The answer has the probabilities (N, classes) as FP32, or with the output parameter `classification` = k the
        k best classes of each image as texts "probability:index:label". An answer that was asked for as binary data,
        by `binary_data` or `binary_data_output`, has the content type application/octet-stream.
        """
        return await _infer(request, served)

    return routes


async def _infer(request: Request, served: ServedModel) -> Response:
    settings: Settings = request.app.state.settings
    await request.body()
    deadline = asyncio.get_running_loop().time() + settings.request_timeout
    inference = await until(deadline, _read(request, served, settings))
    probabilities = await served.infer(inference.pixels, deadline)
    content, headers = encode_response(inference, served.name, served.version, served.labels, probabilities)
    accepted = accepted_encoding(request.headers.get("accept-encoding", ""))
    if accepted and len(content) >= COMPRESSED_FROM:
        content = compress(content, accepted)
        headers["Content-Encoding"] = accepted
    return Response(content, headers=headers)


async def _read(request: Request, served: ServedModel, settings: Settings) -> InferenceRequest:
    threads = _models(request).threads
    body = await inflated_body(request, await request.body(), settings.max_body_bytes, threads)
    arguments = body, request.headers.get("inference-header-content-length"), served.spec, settings.max_images
    if len(body) > PARSED_AT_ONCE:
        return await threads.run(parse_request, *arguments)
    return parse_request(*arguments)


router.include_router(_model_routes("/models/{model}", _highest_version))
router.include_router(_model_routes("/models/{model}/versions/{version}", _exact_version))


async def _infer_named(request: Request, model: str, version: str | None = None) -> Response:
    return await _infer(request, _models(request).get(model, version))


DIRECT = tuple(
    DirectRoute(f"/v2{path}/infer", f"/v2{pattern}/infer", lambda found, _: found.groupdict(), _infer_named)
    for path, pattern in (
        ("/models/{model}", "/models/(?P<model>[^/]+)"),
        ("/models/{model}/versions/{version}", "/models/(?P<model>[^/]+)/versions/(?P<version>[^/]+)"),
    )
)
