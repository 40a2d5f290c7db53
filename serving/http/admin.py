"""POST /admin/models/{name}: loads, reloads and unloads models while the server runs."""

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from serving.errors import InternalError, ModelLoadError, ModelNotServedError, RequestError, StoppingError
from serving.http.body import MAX_SMALL_BYTES, read_small_body
from serving.http.descriptions import FAILURES
from serving.http.errors import first_problem
from serving.http.examples import UNSUPPORTED_ENCODING
from serving.http.openapi import describe_error
from serving.http.query import refuse_query
from serving.http.schemas import ModelChange, ServedVersions
from serving.http.state import change_model_of

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(refuse_query)])


@router.post(
    "/models/{name}",
    summary="Load, reload or unload a model",
    responses={
        400: describe_error(
            "The body is not JSON, or its compression is damaged",
            RequestError("invalid_json", "Invalid JSON: expected value at line 1 column 1"),
            RequestError("invalid_compression", "the gzip data of the body is cut off"),
        ),
        401: describe_error(
            "No admin key", RequestError("unauthorized", "this needs a key: send 'Authorization: Bearer KEY'")
        ),
        404: describe_error("No such model", ModelNotServedError("there is no package of a model 'digits' to load")),
        408: FAILURES["408"],
        413: describe_error(
            "The body is too large",
            RequestError("body_too_large", f"the body of this request may have at most {MAX_SMALL_BYTES} bytes"),
        ),
        415: describe_error("Another content encoding", UNSUPPORTED_ENCODING),
        422: describe_error(
            "The package is damaged, or the request is wrong",
            ModelLoadError("'digits-pde' cannot be loaded, and is served as before; the server's log says why"),
            RequestError("invalid_parameter", "action: Input should be 'load', 'reload' or 'unload'"),
        ),
        500: describe_error("The server failed", InternalError()),
        503: describe_error("The server is stopping", StoppingError()),
    },
    # This function parses the body. FastAPI would answer 400 to a body that is too large or too slow.
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": ModelChange.model_json_schema()}}}
    },
)
async def change_model(request: Request, name: str) -> ServedVersions:
    """Load, reload or unload a model in all of its versions.

    The server reads packages only from the places that its settings name. `load` and `reload` serve the packages found
    there now; `reload` expects the model to be served already. Requests that were accepted before the change are
    answered by the old model. The answer comes once every worker has made the change; if one of them cannot, none does.
    """
    try:
        change = ModelChange.model_validate_json(await read_small_body(request))
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            raise RequestError("invalid_json", first_problem(error)) from error
        raise RequestError("invalid_parameter", first_problem(error)) from error
    return ServedVersions(name=name, versions=await change_model_of(request)(name, change.action))
