"""Checks and completes the head of a request, beyond what the parser does."""

import re
from collections.abc import Iterable

from serving.http.raw_answers import NOT_CHUNKED, NOT_ONE_HOST, RawAnswer

_WITHOUT_PATH = re.compile(rb"\Ahttps?://[^/?#]++(?=[?#]|\Z)", re.IGNORECASE)


def refusal_of(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> RawAnswer | None:
    """Return the answer that refuses a request for its headers, or None if they are valid; names are in lower case.

    A request has one header Host (RFC 9112, 3.2); HTTP/1.0 may have none. Its body is sent in chunks or as it is: a
    body in another transfer coding would be taken for damaged content (RFC 9112, 6.1).
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            return NOT_CHUNKED
    return None if hosts == 1 or (hosts == 0 and http_version == "1.0") else NOT_ONE_HOST


def with_path(target: bytes) -> bytes:
    """Return the target of a request with the path "/" if it is an address without a path (RFC 9110, 4.2.3)."""
    return target if target.startswith(b"/") else _WITHOUT_PATH.sub(rb"\g<0>/", target)
