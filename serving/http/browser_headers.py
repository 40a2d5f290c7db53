"""Response headers that restrict browsers, and those that let pages of other origins read an answer."""

from collections.abc import Collection, Iterable
from typing import TypeAlias

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

EXPOSED = ("Inference-Header-Content-Length", "Retry-After", "X-Request-Id")  # to pages of other origins
_EXPOSED = ", ".join(EXPOSED).encode()


def cross_origin_headers(origins: Collection[str], headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of Starlette's CORSMiddleware, for an answer that does not pass it.

    Args:
        origins: whose pages may read answers; "*": all.
        headers: of the request, their names in lower case.
    """
    if not origins:
        return []
    allowing = [(b"vary", b"Origin")]
    origin = next((value for name, value in headers if name == b"origin"), b"")
    if origin and ("*" in origins or origin.decode("latin-1") in origins):
        allowed = b"*" if "*" in origins else origin
        allowing += [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED)]
    return allowing
