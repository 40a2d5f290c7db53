"""Models loaded, reloaded and unloaded while the server runs."""

from fastapi import APIRouter, Request
from pydantic import ValidationError

from serving.errors import ApiError
from serving.http.routes import error_example
from serving.http.schemas import ModelChange, ServedVersions

router = APIRouter(prefix="/admin", tags=["admin"])


@router.post(
    "/models/{name}",
    summary="Load, reload or unload a model",
    responses={
        400: error_example("The body is not JSON", ("invalid_json", "Invalid JSON: expected value at line 1 column 1")),
        401: error_example("No admin key", ("unauthorized", "this needs a key: send 'Authorization: Bearer KEY'")),
        404: error_example("No such model", ("model_not_found", "there is no package of a model 'digits' to load")),
        422: error_example(
            "The package is damaged, or the request wrong",
            ("model_load_failed", "'digits-pde' cannot be loaded, and is served as before; the server's log says why"),
            ("invalid_parameter", "action: Input should be 'load', 'reload' or 'unload'"),
        ),
        503: error_example("The server is stopping", ("not_ready", "the server is stopping")),
    },
    # Read here: FastAPI would answer 400 to a body that is too large or too slow as well.
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": ModelChange.model_json_schema()}}}
    },
)
async def change_model(request: Request, name: str) -> ServedVersions:
    """Packages are read from where the server's settings say, never from what a request names.

    `load` and `reload` serve what is there now, in all its versions; `reload` wants the model to be served already.
    Requests that were accepted before are answered by what they were accepted for. The answer comes once every worker
    has made the change; where one of them cannot, none makes it.
    """
    try:
        change = ModelChange.model_validate_json(await request.body())
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            raise ApiError(400, "invalid_json", problem["msg"]) from error
        place = ".".join(map(str, problem["loc"])) or "the body"
        raise ApiError(422, "invalid_parameter", f"{place}: {problem['msg']}") from error
    return ServedVersions(name=name, versions=await request.app.state.change_model(name, change.action))
