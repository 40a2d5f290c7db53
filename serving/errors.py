"""Errors as answers: `{"error": {"code": ..., "message": ...}}` everywhere, and `{"error": message}` under /v2."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope


class ApiError(Exception):
    """A request that is answered with an error: its status, a stable code for programs and a message for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


class OverloadedError(ApiError):
    """There is no room for more work."""

    def __init__(self) -> None:
        super().__init__(503, "overloaded", "the server is at capacity: try again later", {"Retry-After": "1"})


class DeadlineError(ApiError):
    """The images were not classified in the time that a request has."""

    def __init__(self) -> None:
        super().__init__(504, "deadline_exceeded", "the images could not be classified in time")


class InferenceError(ApiError):
    """The network failed on an image that is valid."""

    def __init__(self) -> None:
        super().__init__(500, "inference_failed", "the network failed on this image; the server's log has the details")


def error_response(
    scope: Scope, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer to the request of this scope, in the shape that its protocol has for errors."""
    scope["pdeinfer.error"] = code  # for the metrics
    is_v2 = scope["path"] == "/v2" or scope["path"].startswith("/v2/")
    # In ASCII: a message may quote what is no valid Unicode.
    content = json.dumps({"error": message if is_v2 else {"code": code, "message": message}}, separators=(",", ":"))
    return Response(content, status, headers, "application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Answer every expected exception in the one shape; `middleware.observation` has the unexpected ones."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error_response(request.scope, error.status, error.code, error.message, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).name.lower()
        return error_response(request.scope, error.status_code, code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_parameter(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        return error_response(request.scope, 422, "invalid_parameter", f"{problem['loc'][-1]}: {problem['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def client_disconnected(request: Request, __: ClientDisconnect) -> Response:
        # Nobody reads this answer; without it, a client that goes away would be logged as a fault of the server.
        message = "the connection was closed before the body was complete"
        return error_response(request.scope, 400, "client_disconnected", message)
