"""The bytes of answers that are sent without the application."""

import json
from http import HTTPStatus


def error_answer(status: HTTPStatus, body: object, *headers: str) -> bytes:
    """Return an answer that is sent without the application, after which the connection closes."""
    content = json.dumps(body, separators=(",", ":"))
    lines = ("content-type: application/json", f"content-length: {len(content)}", "connection: close", *headers)
    return "\r\n".join((f"HTTP/1.1 {status} {status.phrase}", *lines, "", content)).encode()


def _error(status: HTTPStatus, code: str, message: str, *headers: str) -> bytes:
    return error_answer(status, {"error": {"code": code, "message": message}}, *headers)


MALFORMED = _error(HTTPStatus.BAD_REQUEST, "malformed_request", "the request is not valid HTTP")
TOO_LARGE = _error(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    "the headers of a request are too many or too large",
)
TOO_MANY = _error(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded",
    "the server has too many connections: try again later",
    "retry-after: 1",
)
