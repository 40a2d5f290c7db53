"""Inflates request bodies within a limit, and compresses responses for clients that accept it."""

import zlib

from starlette.datastructures import Headers

from serving.errors import RequestError
from serving.http.header_lists import weights

# zlib's `wbits` by the name of the encoding. HTTP's "deflate" is the zlib format (RFC 9110, 8.4.1.2).
_FORMATS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# Random bytes and photographs hardly compress, text tenfold; blank pixels and JSON of zeros a thousandfold. Beyond the
# first megabytes, only an attack needs more than this ratio.
MAX_RATIO = 100
ANY_RATIO_BYTES = 4 * 2**20
_LEVEL = 1  # probabilities hardly compress: a higher level gains nothing


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Inflate a request body with this Content-Encoding, in at most `max_bytes` of memory.

    Raises:
        RequestError: the encoding is not gzip, deflate or identity; there are more than `max_bytes`, or more than
            ANY_RATIO_BYTES and than MAX_RATIO times the body; or the body is damaged, cut off, or goes on after its
            end.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _FORMATS:
        raise RequestError(
            "unsupported_content_encoding", f"expected the content encoding gzip or deflate, got {encoding[:40]!r}"
        )
    max_bytes = min(max_bytes, max(ANY_RATIO_BYTES, MAX_RATIO * len(body)))
    inflater = zlib.decompressobj(_FORMATS[encoding])
    try:
        content = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("invalid_compression", f"the body is not {encoding} data: {error}") from error
    if len(content) > max_bytes:
        raise RequestError(
            "body_too_large", f"an inflated request body of {len(body)} bytes may have at most {max_bytes} bytes"
        )
    if not inflater.eof or inflater.unused_data:
        problem = "goes on after its end" if inflater.eof else "is cut off"
        raise RequestError("invalid_compression", f"the {encoding} data of the body {problem}")
    return content


def accepted_encoding(headers: Headers) -> str | None:
    """Return "gzip" or "deflate", the first of the two that the Accept-Encoding of a request accepts."""
    accepted = weights(headers, "accept-encoding")
    return next((encoding for encoding in _FORMATS if accepted.get(encoding, 0) > 0), None)


def compress(body: bytes, encoding: str) -> bytes:
    """Compress a body as "gzip" or "deflate"."""
    return zlib.compress(body, _LEVEL, _FORMATS[encoding])
