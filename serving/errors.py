"""Errors as answers: `{"error": {"code": ..., "message": ...}}` everywhere, and `{"error": message}` under /v2."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
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


class QueueFullError(ApiError):
    """As many images as the queue may hold are being worked on."""

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
) -> JSONResponse:
    """Return the answer to the request of this scope, in the shape that its protocol has for errors."""
    is_v2 = scope["path"] == "/v2" or scope["path"].startswith("/v2/")
    return JSONResponse({"error": message if is_v2 else {"code": code, "message": message}}, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception of the app in the one shape; unexpected ones are logged, their text is not sent."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return error_response(request.scope, error.status, error.code, error.message, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        return error_response(request.scope, error.status_code, code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        return error_response(request.scope, 422, "invalid_parameter", f"{problem['loc'][-1]}: {problem['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def client_disconnected(request: Request, __: ClientDisconnect) -> JSONResponse:
        # Nobody reads this answer; without it, a client that goes away would be logged as a fault of the server.
        message = "the connection was closed before the body was complete"
        return error_response(request.scope, 400, "client_disconnected", message)

    @app.exception_handler(Exception)
    async def internal_error(request: Request, __: Exception) -> JSONResponse:
        return error_response(
            request.scope, 500, "internal_error", "the server failed to answer; its log has the details"
        )
