"""Error answers that are sent without the application."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import OverloadedError
from serving.http.browser_headers import SECURITY_HEADERS, Headers


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An error answer that is sent without the application, after which its connection closes.

    Attributes:
        status, code, message: of the error.
        is_v2: whether the body has the shape of the Open Inference Protocol.
        route, method, path: of the request, where it is one.
        delay: seconds until it is sent.
    """

    status: HTTPStatus
    code: str
    message: str
    is_v2: bool = False
    route: str = "other"
    method: str | None = None
    path: str | None = None
    delay: float = 0.0

    def encode(self, headers: Headers) -> bytes:
        """Return its bytes.

        Args:
            headers: further ones, of this request.
        """
        error = self.message if self.is_v2 else {"code": self.code, "message": self.message}
        content = json.dumps({"error": error}, separators=(",", ":")).encode()
        own = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
        ]
        if self.code == OverloadedError.code:
            own.append((b"retry-after", b"1"))
        lines = (b"%b: %b" % header for header in (*own, *SECURITY_HEADERS, *headers))
        return b"\r\n".join((f"HTTP/1.1 {self.status} {self.status.phrase}".encode(), *lines, b"", content))


MALFORMED = RawAnswer(HTTPStatus.BAD_REQUEST, "malformed_request", "the request is not valid HTTP")
NOT_ONE_HOST = RawAnswer(HTTPStatus.BAD_REQUEST, MALFORMED.code, "expected one header Host")
NOT_CHUNKED = RawAnswer(
    HTTPStatus.BAD_REQUEST,
    MALFORMED.code,
    "expected no Transfer-Encoding but chunked: Content-Encoding says how a body is compressed",
)
TINY_CHUNKS = RawAnswer(
    HTTPStatus.BAD_REQUEST, MALFORMED.code, "the body comes in too many tiny chunks: send larger ones"
)
TOO_LARGE = RawAnswer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    "the headers of a request are too many or too large",
)
TOO_MANY = RawAnswer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    OverloadedError.code,
    "the server has too many connections: try again later",
)
TOO_MANY_PIPELINED = RawAnswer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    OverloadedError.code,
    "too many requests wait for the answers to earlier ones: send this one again later",
)
