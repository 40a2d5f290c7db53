"""Error responses: `{"error": {"code": ..., "message": ...}}`, and `{"error": message}` under /v2."""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from pdeinfer.text import counted
from serving.errors import OverloadedError, RequestError, ServingError
from serving.http.paths import route_path
from serving.interface.pace import Pace
from serving.interface.statuses import STATUSES
from serving.telemetry.metrics import REJECTED

_HEADERS = {
    "overloaded": {"Retry-After": "1", "Connection": "close"},
    "unauthorized": {"WWW-Authenticate": "Bearer"},
}


def first_problem(error: ValidationError) -> str:
    """Return the place of the first error in JSON, and the error."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"])) or "the body"
    return f"{place}: {problem['msg']}"


def too_many_images(max_images: int) -> RequestError:
    """Return the error for a request with more images than the server accepts at once."""
    return RequestError("too_many_images", f"a request may hold at most {counted(max_images, 'image')}")


def error_response(scope: Scope, error: ServingError) -> Response:
    """Return the response for an error of this server, in the shape that the request's protocol uses."""
    return shaped_response(scope, STATUSES[error.code], error.code, str(error), _HEADERS.get(error.code))


def shaped_response(
    scope: Scope, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Count an error, which may have no entry here, and return its response in the shape of the request's protocol."""
    REJECTED.labels(code).inc()
    path = route_path(scope)
    is_v2 = path == "/v2" or path.startswith("/v2/")
    # ASCII only: a message may quote text that is not valid Unicode.
    content = json.dumps({"error": message if is_v2 else {"code": code, "message": message}}, separators=(",", ":"))
    return Response(content, status, headers, "application/json")


def add_error_handlers(app: FastAPI, pace: Pace) -> None:
    """Turn expected exceptions into error responses; `serving.middleware.observation` handles the others.

    Args:
        pace: of the refusals.
    """

    @app.exception_handler(ServingError)
    async def serving_error(request: Request, error: ServingError) -> Response:
        return await answer_error(request.scope, error, pace)

    @app.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).name.lower()
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # by `serving.middleware.head`
        return shaped_response(request.scope, error.status_code, code, error.detail, headers)


async def answer_error(scope: Scope, error: ServingError, pace: Pace) -> Response:
    """Return the response for an expected error, at the pace of the refusals."""
    # The frames of its traceback hold the body, and in the end the error itself: only the garbage collector would free
    # them.
    error.__traceback__ = None
    if isinstance(error, OverloadedError):
        await asyncio.sleep(pace.delay())
    return error_response(scope, error)
