"""The images of a JSON body, in base64."""

import base64
import codecs
import re
import reprlib
from collections.abc import Iterator
from itertools import chain

from pydantic import ValidationError

from pdeinfer import ImageError
from pdeinfer.text import counted
from serving.errors import RequestError
from serving.http.errors import first_problem, too_many_images
from serving.http.json_text import LONG_BYTES, PARSED_WHOLE, ascii_pieces, cut
from serving.http.query import QueryParameters
from serving.http.schemas import MAX_FILENAME, Base64Image, ImagesBody

# Parsed JSON takes more memory than its text, and pydantic's errors a hundred times as much. A body with more values
# than its images can need is refused before it is parsed.
_VALUES = 1024
_VALUES_PER_IMAGE = 16

_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_MAX_DATA_URL_HEAD = 1024
_PERCENT_ENCODED = [
    (code, character) for character in "+/=-_ \t\r\n" for code in {f"%{ord(character):02X}", f"%{ord(character):02x}"}
]
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


class Base64Error(ImageError):
    """The text of an image is not base64."""


def parse_json_images(
    body: bytes, max_images: int, parameters: QueryParameters
) -> list[tuple[str | None, bytes | ImageError]]:
    """Return the filename of every image with its bytes, or with the reason why it has none; at least one image.

    Raises:
        RequestError: the body is not the JSON that was expected, or holds no images or too many.
    """
    parts: dict[str, memoryview] = {}
    if len(body) > PARSED_WHOLE:
        cut_body = cut(body, PARSED_WHOLE + 2 * LONG_BYTES * max_images)
        body, parts = cut_body.text, cut_body.parts
    max_values = _VALUES + _VALUES_PER_IMAGE * max_images
    if body.count(b",") >= max_values:  # base64 has no commas, data URLs have one, and file names have few
        raise RequestError(
            "json_too_large", f"expected at most {max_values} values of JSON, for {counted(max_images, 'image')}"
        )
    try:
        images = ImagesBody.model_validate_json(body.removeprefix(codecs.BOM_UTF8)).images
    except ValidationError as error:
        raise RequestError("invalid_json", _problem(error, parameters)) from error
    if not images:
        raise RequestError("no_images", "the list of images is empty")
    if len(images) > max_images:
        raise too_many_images(max_images)
    return [_image(image, number, parts) for number, image in enumerate(images, 1)]


def _problem(error: ValidationError, parameters: QueryParameters) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *place, name = map(str, problem["loc"])
    known = "content and filename" if place else "images"
    found = ".".join((*place, reprlib.repr(name)))
    return f"{found}: {parameters.place_of(name) or f'expected only {known}'}"


def _image(image: Base64Image, number: int, parts: dict[str, memoryview]) -> tuple[str | None, bytes | ImageError]:
    if image.filename in parts:
        raise RequestError("invalid_json", f"images.{number - 1}.filename: expected at most {MAX_FILENAME} characters")
    try:
        part = parts.get(image.content)
        return image.filename, decode_base64(image.content if part is None else ascii_pieces(part))
    except ValueError as error:
        return image.filename, Base64Error(f"{image.filename or f'image {number}'}: expected base64: {error}")


def decode_base64(text: str | Iterator[str]) -> bytes:
    """Decode base64 as tools write it: also in lines, in the URL-safe alphabet, without padding, or as a data URL.

    Args:
        text: whole or in pieces.

    Raises:
        ValueError: it is none of these.
    """
    pieces = iter((text,)) if isinstance(text, str) else text
    first = next(pieces, "")
    url = _DATA_URL.match(first[:_MAX_DATA_URL_HEAD])
    if url:
        if not url[1].strip().lower().endswith(";base64"):
            raise ValueError("the data URL is not in base64")
        first = first[url.end() :]
    decoded = []
    waiting = b""  # less than four characters, and the padding
    for piece in chain((first,), pieces):
        more = _standard_base64(_unquote(piece) if url else piece)
        if b"=" in waiting and more.strip(b"="):
            raise ValueError("it goes on after its padding")
        data = waiting + more
        whole = 0 if b"=" in data else len(data) - len(data) % 4
        decoded.append(base64.b64decode(data[:whole], validate=True))
        waiting = data[whole:]
    data = waiting.rstrip(b"=")
    decoded.append(base64.b64decode(data + b"=" * (-len(data) % 4), validate=True))
    return b"".join(decoded)


def _standard_base64(text: str) -> bytes:
    if not text.isascii():
        raise ValueError("it has characters that are not ASCII")
    return text.encode().translate(_TO_STANDARD_ALPHABET, b" \t\r\n")


def _unquote(text: str) -> str:
    """Decode what percent-encoding may stand for in base64; `urllib` would need a thousand times the memory."""
    if "%" in text:
        for code, character in _PERCENT_ENCODED:
            text = text.replace(code, character)
    return text
