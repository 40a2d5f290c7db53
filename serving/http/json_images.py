"""The images of a JSON body, in base64."""

import base64
import re
from urllib.parse import unquote

from pydantic import ValidationError

from pdeinfer import ImageError
from serving.http.errors import ApiError, first_problem, too_many_images
from serving.http.schemas import ImagesBody

# Parsed JSON takes more memory than its text, and pydantic's errors a hundred times as much. A body with more values
# than its images can need is refused before it is parsed.
_VALUES = 1024
_VALUES_PER_IMAGE = 16

_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_TO_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


class Base64Error(ImageError):
    """The text of an image is not base64."""


def parse_json_images(body: bytes, max_images: int) -> list[tuple[str | None, bytes | ImageError]]:
    """Return the filename of every image with its bytes, or with the reason why it has none; at least one image.

    Raises:
        ApiError: the body is not the JSON that was expected, or holds no images or too many.
    """
    max_values = _VALUES + _VALUES_PER_IMAGE * max_images
    if body.count(b",") >= max_values:  # base64 has no commas, data URLs have one, and file names have few
        raise ApiError("json_too_large", f"expected at most {max_values} values of JSON, for {max_images} images")
    try:
        images = ImagesBody.model_validate_json(body).images
    except ValidationError as error:
        raise ApiError("invalid_json", first_problem(error)) from error
    if not images:
        raise ApiError("no_images", "the list of images is empty")
    if len(images) > max_images:
        raise too_many_images(max_images)
    return [
        (image.filename, _bytes_or_error(image.content, image.filename or f"image {number}"))
        for number, image in enumerate(images, 1)
    ]


def _bytes_or_error(text: str, name: str) -> bytes | ImageError:
    try:
        return decode_base64(text)
    except ValueError as error:
        return Base64Error(f"{name}: expected base64: {error}")


def decode_base64(text: str) -> bytes:
    """Decode base64 as tools write it: also in lines, in the URL-safe alphabet, without padding, or as a data URL.

    Raises:
        ValueError: it is none of these.
    """
    if url := _DATA_URL.match(text):
        if not url[1].strip().lower().endswith(";base64"):
            raise ValueError("the data URL is not in base64")
        text = unquote(text[url.end() :])
    if not text.isascii():
        raise ValueError("it has characters that are not ASCII")
    data = text.encode().translate(_TO_STANDARD_ALPHABET, b" \t\r\n").rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
