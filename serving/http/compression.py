"""Inflates request bodies within a limit, and compresses responses for clients that accept it."""

import zlib
from collections.abc import Sequence

from starlette.datastructures import Headers

from serving.errors import RequestError
from serving.http.header_lists import weights

# zlib's `wbits` by the name of the encoding. HTTP's "deflate" is the zlib format (RFC 9110, 8.4.1.2).
_FORMATS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
# Random bytes and photographs hardly compress, text tenfold; blank pixels and JSON of zeros a thousandfold. Beyond the
# first megabytes, only an attack needs more than this ratio.
MAX_RATIO = 100
ANY_RATIO_BYTES = 4 * 2**20
# An empty member of gzip data takes time and yields no bytes. bgzip writes members of 64 KiB.
MAX_MEMBERS = 4096
_GZIP_START = 0x1F
# At the end of each member zlib copies the rest of its input. A body of many members, given whole, would take minutes.
_PIECE_BYTES = 2**16
_LEVEL = 1  # probabilities hardly compress: a higher level gains nothing


def inflate(body: bytes, encodings: Sequence[str], max_bytes: int) -> bytes:
    """Inflate a request body in at most `max_bytes` of memory.

    Args:
        encodings: of the header Content-Encoding, in lower case.

    Raises:
        RequestError: the encoding is not gzip, deflate or identity, or there are several; there are more than
            `max_bytes`, or more than ANY_RATIO_BYTES and than MAX_RATIO times the body; or the body is damaged, cut
            off, goes on after its end, or has more than MAX_MEMBERS members.
    """
    found = ["gzip" if each == "x-gzip" else each for each in encodings if each != "identity"]
    if not found:
        return body
    encoding = ", ".join(found)
    if encoding not in _FORMATS:
        raise RequestError(
            "unsupported_content_encoding", f"expected the content encoding gzip or deflate, got {encoding[:40]!r}"
        )
    max_bytes = min(max_bytes, max(ANY_RATIO_BYTES, MAX_RATIO * len(body)))
    try:
        return _inflate(body, encoding, max_bytes)
    except zlib.error as error:
        raise RequestError("invalid_compression", f"the body is not {encoding} data: {error}") from error


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(_FORMATS[encoding])
    parts: list[bytes] = []
    left, members = max_bytes, 1
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        while piece:
            if inflater.eof:
                members += 1
                _check_next_member(encoding, piece[0], members)
                inflater = zlib.decompressobj(_FORMATS[encoding])
            part = inflater.decompress(piece, left + 1)
            if len(part) > left:
                raise RequestError(
                    "body_too_large",
                    f"an inflated request body of {len(body)} bytes may have at most {max_bytes} bytes",
                )
            left -= len(part)
            parts.append(part)
            piece = inflater.unused_data
    if not inflater.eof:
        raise RequestError("invalid_compression", f"the {encoding} data of the body is cut off")
    return b"".join(parts)


def _check_next_member(encoding: str, first_byte: int, members: int) -> None:
    if encoding != "gzip" or first_byte != _GZIP_START:
        raise RequestError("invalid_compression", f"the {encoding} data of the body goes on after its end")
    if members > MAX_MEMBERS:
        raise RequestError("invalid_compression", f"expected at most {MAX_MEMBERS} members of gzip data in the body")


def accepted_encoding(headers: Headers) -> str | None:
    """Return "gzip" or "deflate", the first of the two that the Accept-Encoding of a request accepts."""
    accepted = weights(headers, "accept-encoding")
    return next((encoding for encoding in _FORMATS if accepted.get(encoding, 0) > 0), None)


def compress(body: bytes, encoding: str) -> bytes:
    """Compress a body as "gzip" or "deflate"."""
    return zlib.compress(body, _LEVEL, _FORMATS[encoding])
