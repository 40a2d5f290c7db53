"""Cuts long strings and arrays out of JSON, so that no call of a JSON parser takes long.

A call into C keeps the other threads of Python waiting, and with them the event loop. For 32 MiB of JSON that would be
seconds. What is cut out is processed in pieces.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import RequestError

PARSED_WHOLE = 64 * 2**10  # shorter JSON is parsed in one call
PIECE_BYTES = 2**17
LONG_BYTES = 16 * 2**10  # a string or an array from here on is cut out

_MAX_QUOTES = 20_000  # escaped ones within strings
_MAX_BACKSLASHES = 1024  # in a row before a quote
_LONGEST_ESCAPE = len(r"\u002b")


@dataclass(frozen=True, slots=True)
class CutJson:
    """JSON with strings in the place of what was cut out.

    Attributes:
        text: the JSON.
        parts: what was cut out, by the strings that stand for them: the text between the quotes of a string, or an
            array with its brackets.
    """

    text: bytes
    parts: dict[str, memoryview]


def cut(body: bytes, max_bytes: int) -> CutJson:
    """Cut out the long strings, and the long arrays that hold neither strings nor objects.

    Args:
        body: text that should be JSON; this function does not check it.
        max_bytes: the most that may be left.

    Raises:
        RequestError: `json_too_large`, or `invalid_json` if a string does not end.
    """
    mark = secrets.token_hex(16)  # no client can guess it
    left: list[bytes] = []
    parts: dict[str, memoryview] = {}
    view = memoryview(body)
    size = 0

    def cut_out(start: int, end: int) -> bytes:
        name = f"{mark}{len(parts)}"
        parts[name] = view[start:end]
        return f'"{name}"'.encode()

    for start, end, is_string in _segments(body):
        piece = body[start:end]
        if is_string and len(piece) >= LONG_BYTES:
            piece = cut_out(start + 1, end - 1)
        elif len(piece) >= LONG_BYTES:
            first = body.find(b"[", start, end)
            brace = body.find(b"}", first, end)
            last = body.rfind(b"]", first, brace if brace >= 0 else end)
            if 0 <= first < last:
                piece = body[start:first] + cut_out(first, last + 1) + body[last + 1 : end]
        left.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise RequestError("json_too_large", f"expected at most {max_bytes} bytes of JSON beside images and pixels")
    return CutJson(b"".join(left), parts)


def _segments(body: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield the start and the end of every string with its quotes, and of what is between strings."""
    position = quotes = 0
    while (start := body.find(b'"', position)) >= 0:
        yield position, start, False
        end = start
        while True:
            end = body.find(b'"', end + 1)
            quotes += 1
            if end < 0:
                raise RequestError("invalid_json", "a string of the JSON does not end")
            before = body[max(start + 1, end - _MAX_BACKSLASHES) : end]
            backslashes = len(before) - len(before.rstrip(b"\\"))
            if quotes > _MAX_QUOTES or backslashes == _MAX_BACKSLASHES:
                raise RequestError("json_too_large", f"expected at most {_MAX_QUOTES} strings in the JSON")
            if backslashes % 2 == 0:
                break
        yield start, end + 1, True
        position = end + 1
    yield position, len(body), False


def ascii_pieces(text: memoryview) -> Iterator[str]:
    """Yield the value of a long string in pieces, none of which ends within an escape or a percent-encoded character.

    Args:
        text: of the JSON, without its quotes.

    Raises:
        ValueError: it is not a string of JSON, or holds characters that are not ASCII.
    """
    position = 0
    while position < len(text):
        end = min(position + PIECE_BYTES, len(text))
        if end < len(text):
            tail = bytes(text[end - _LONGEST_ESCAPE + 1 : end])
            escape = max(tail.rfind(b"\\"), tail.rfind(b"%"))
            end -= len(tail) - escape if escape >= 0 else 0
        piece = bytes(text[position:end])
        if not piece.isascii():
            raise ValueError("it has characters that are not ASCII")
        yield json.loads(b'"%b"' % piece)
        position = end
