"""Routes of the Open Inference Protocol (V2) beside inference: the server, its health and its models."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import ValidationError

from pdeinfer import __version__
from pdeinfer.package.package import INPUT_NAME
from serving.engine.served_model import ServedModel
from serving.errors import NotReadyError, RequestError
from serving.http.body import read_small_body
from serving.http.errors import first_problem
from serving.http.examples import NO_SUCH_MODEL
from serving.http.openapi import describe_v2_error
from serving.http.query import refuse_query
from serving.http.state import models_of, settings_of
from serving.http.v2.schemas import (
    IndexedModel,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    RepositoryIndexRequest,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorConfig,
    TensorMetadata,
)
from serving.interface.tensors import NUMBERS, PIXELS

TAG = "Open Inference Protocol (V2)"
DEFAULT_ANSWER: dict[int | str, dict[str, Any]] = {"default": describe_v2_error("Every other answer")}
NOT_FOUND = describe_v2_error("No such model or version", NO_SUCH_MODEL)

Name = Annotated[str, Path(description="a name from /models", examples=["digits-pde"])]
Version = Annotated[str, Path(description="one of the model's versions", examples=["1"])]

# Probes ignore query parameters, like /healthz.
probes = APIRouter(prefix="/v2/health", tags=[TAG])


@probes.get("/live", summary="Whether the server is alive", responses=DEFAULT_ANSWER)
async def server_live() -> ServerLive:
    return ServerLive()


@probes.get(
    "/ready",
    summary="Whether models are served and the server is not stopping",
    responses={503: describe_v2_error("Send requests elsewhere", NotReadyError()), **DEFAULT_ANSWER},
)
async def server_ready(request: Request) -> ServerReady:
    if not models_of(request).ready:
        raise NotReadyError
    return ServerReady()


server = APIRouter(tags=[TAG], dependencies=[Depends(refuse_query)])


@server.get("/v2", summary="The server", responses=DEFAULT_ANSWER)
@server.get("/v2/", include_in_schema=False)
async def server_metadata() -> ServerMetadata:
    return ServerMetadata(version=__version__)


@server.post(
    "/v2/repository/index",
    summary="The versions of the served models",
    responses={
        400: describe_v2_error("The body is not JSON", RequestError("invalid_json", "the body: Invalid JSON")),
        **DEFAULT_ANSWER,
    },
    # As in `serving.http.admin`, this function parses the body.
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": RepositoryIndexRequest.model_json_schema()}}}
    },
)
async def repository_index(request: Request) -> list[IndexedModel]:
    if body := await read_small_body(request):
        try:
            RepositoryIndexRequest.model_validate_json(body)
        except ValidationError as error:
            raise RequestError("invalid_json", first_problem(error)) from error
    return [IndexedModel(name=model.name, version=model.version) for model in models_of(request)]


async def _highest_version(request: Request, model: Name) -> ServedModel:
    return models_of(request).get(model)


async def _exact_version(request: Request, model: Name, version: Version) -> ServedModel:
    return models_of(request).get(model, version)


def _model_routes(prefix: str, find: Callable[..., Awaitable[ServedModel]]) -> APIRouter:
    """Return the routes of the model that the path names and `find` finds."""
    routes = APIRouter(prefix=prefix, tags=[TAG], dependencies=[Depends(refuse_query)])
    answers: dict[int | str, dict[str, Any]] = {404: NOT_FOUND, **DEFAULT_ANSWER}

    @routes.get("", summary="A model's inputs and outputs", responses=answers)
    async def model_metadata(request: Request, served: Annotated[ServedModel, Depends(find)]) -> ModelMetadata:
        spec = served.spec
        image = (-1, spec.height, spec.width, spec.channels)
        return ModelMetadata(
            name=served.name,
            versions=models_of(request).versions(served.name),
            inputs=(TensorMetadata(name=INPUT_NAME, datatype=PIXELS, shape=image),),
            outputs=tuple(
                TensorMetadata(name=name, datatype=NUMBERS, shape=(-1, size)) for name, size in served.outputs.items()
            ),
        )

    @routes.get("/ready", summary="Whether a model is served", responses=answers)
    async def model_ready(served: Annotated[ServedModel, Depends(find)]) -> ModelReady:
        return ModelReady(name=served.name)

    @routes.get("/config", summary="A model's configuration, in Triton's format", responses=answers)
    async def model_configuration(
        request: Request, served: Annotated[ServedModel, Depends(find)]
    ) -> ModelConfiguration:
        spec = served.spec
        image = (spec.height, spec.width, spec.channels)
        return ModelConfiguration(
            name=served.name,
            max_batch_size=settings_of(request).max_images,
            input=(TensorConfig(name=INPUT_NAME, data_type=f"TYPE_{PIXELS}", dims=image),),
            output=tuple(
                TensorConfig(name=name, data_type=f"TYPE_{NUMBERS}", dims=(size,))
                for name, size in served.outputs.items()
            ),
        )

    return routes


ROUTERS = (
    probes,
    server,
    _model_routes("/v2/models/{model}", _highest_version),
    _model_routes("/v2/models/{model}/versions/{version}", _exact_version),
)
