"""The images of a request body: the files of a form, one raw image, or JSON with base64."""

from dataclasses import dataclass
from functools import partial

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from pdeinfer import ImageError
from serving.engine.deadline import until
from serving.engine.decoder import NamedFile
from serving.engine.threads import Threads
from serving.errors import RequestError
from serving.http.body import parse, read_body
from serving.http.byte_budget import Hold
from serving.http.forms import parse_form
from serving.http.json_images import parse_json_images
from serving.http.query import QueryParameters
from serving.http.state import models_of

FORM = "multipart/form-data"
JSON = "application/json"
_RAW = "application/octet-stream"  # like image/*


@dataclass(frozen=True, slots=True)
class MediaType:
    """The type of a request body.

    Attributes:
        name: in lower case.
        boundary: of a form; empty for other types and for a form without one.
    """

    name: str
    boundary: bytes


@dataclass(frozen=True, slots=True)
class Uploads:
    """The images of a request, at least one.

    Attributes:
        names: as sent with them; None for an image without a name.
        files: the images, named for errors.
        deadline: for the answer, on the event loop's clock.
    """

    names: list[str | None]
    files: list[NamedFile]
    deadline: float


async def read_uploads(request: Request, hold: Hold, max_images: int, parameters: QueryParameters) -> Uploads:
    """Read the images of a request.

    Args:
        hold: counts the bytes that the request holds.
        max_images: the most images.
        parameters: of the operation; the body must not hold them.

    Raises:
        RequestError: the body has another type, is malformed, or holds no image or too many.
        OverloadedError, DeadlineError: as `read_body` raises them.
    """
    content_type = media_type(request)  # before the body is read
    body, deadline = await read_body(request, hold)
    if content_type.name in (FORM, JSON):
        parsing = parse_uploads(body, content_type, max_images, parameters, models_of(request).threads)
        del body  # is free once it is parsed
        found = await until(deadline, parsing)
    else:
        found = [(None, body)]
    files = [(name or f"image {number}", content) for number, (name, content) in enumerate(found, 1)]
    return Uploads([name for name, _ in found], files, deadline)


def media_type(request: Request) -> MediaType:
    """Return the type of a request body that can hold images.

    Raises:
        RequestError: it is another type.
    """
    header = request.headers.get("content-type", "")
    found, options = parse_options_header(header)
    name = found.decode("latin-1").strip().lower()
    if name.startswith("image/") or name in (FORM, JSON, _RAW):
        return MediaType(name, options.get(b"boundary", b""))
    raise RequestError(
        "unsupported_media_type",
        f"expected the content type {FORM}, {JSON}, image/* or {_RAW}, got {name[:100] or 'none'}",
    )


async def parse_uploads(
    body: bytes, content_type: MediaType, max_images: int, parameters: QueryParameters, threads: Threads
) -> list[tuple[str | None, bytes | ImageError]]:
    """Return the filename of every image of a form or JSON with its bytes, or with the reason why it has none.

    Raises:
        RequestError: the body is malformed, or holds no image or too many.
    """
    if content_type.name == FORM:
        boundary = content_type.boundary
        parsing = partial(parse_form, boundary=boundary, max_images=max_images, parameters=parameters)
        return [*await parse(threads, parsing, body)]
    return await parse(threads, partial(parse_json_images, max_images=max_images, parameters=parameters), body)
