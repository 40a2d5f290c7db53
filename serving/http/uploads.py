"""The images of a request body: the files of a form, one raw image, or JSON with base64."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.engine.threads import Threads
from serving.errors import ApiError
from serving.http.forms import split_form
from serving.http.schemas import MAX_FILENAME, Base64Image, ImagesBody
from serving.middleware.compression import inflated_body
from serving.settings import Settings

# A form is for files; these bound what the parser takes before anything else in it is refused.
MAX_FORM_FIELDS = 8
MAX_FIELD_BYTES = 64 * 2**10

# Beside image/*.
_MEDIA_TYPES = ("multipart/form-data", "application/json", "application/octet-stream")

# JSON grows when parsed, and its errors a hundred-fold: what has more values than its images can need is not parsed.
_JSON_VALUES = 1024
_JSON_VALUES_PER_IMAGE = 16

# The request body of an operation that takes images, for the OpenAPI document.
REQUEST_BODY = {
    "required": True,
    "description": "One or many images: as the files of a form, under any field name; as JSON; or one image's bytes.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "description": "the images, in the order of the results",
                    }
                },
                "required": ["file"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": Base64Image.model_json_schema(), "minItems": 1}},
                "required": ["images"],
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it was sent: its file name, if it came with one, and its bytes, or the text of them in base64."""

    filename: str | None
    content: bytes | str


def media_type(request: Request) -> str:
    """Return the type of the body; raise 415 where it is none that holds images."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("image/") or content_type in _MEDIA_TYPES:
        return content_type
    raise ApiError(
        415,
        "unsupported_media_type",
        "expected the content type multipart/form-data, application/json, image/* or application/octet-stream, "
        f"got {content_type or 'none'}",
    )


async def read_uploads(request: Request, body: bytes, settings: Settings, threads: Threads) -> list[Upload]:
    """Return the images of the body, at least one.

    Raises:
        ApiError: 415 for another content type or encoding; 400 for a body that is broken or holds no image; 413 for
            too many images, or too many bytes once they are inflated; 503 where too many bytes are held.
    """
    content_type = media_type(request)
    body = await inflated_body(request, body, settings.max_body_bytes, threads)
    if content_type == "multipart/form-data":
        return await _read_form(request, body, settings.max_images)
    if content_type == "application/json":
        return await threads.run(_parse_json, body, settings.max_images)
    return [Upload(None, body)]


def _parse_json(body: bytes, max_images: int) -> list[Upload]:
    max_values = _JSON_VALUES + _JSON_VALUES_PER_IMAGE * max_images
    if body.count(b",") >= max_values:  # base64 has no commas, and file names have few
        raise ApiError(413, "json_too_large", f"expected at most {max_values} values of JSON, for {max_images} images")
    try:
        images = ImagesBody.model_validate_json(body).images
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the body"
        raise ApiError(400, "invalid_json", f"{place}: {problem['msg']}") from error
    if not images:
        raise ApiError(400, "no_images", "the list of images is empty")
    if len(images) > max_images:
        raise _too_many_images(max_images)
    # What is no ASCII is no base64 either, and not held until it is refused: it may take four bytes a character.
    return [Upload(image.filename, image.content if image.content.isascii() else "\xff") for image in images]


def _too_many_images(max_images: int) -> ApiError:
    return ApiError(413, "too_many_images", f"a request may hold at most {max_images} images")


async def _read_form(request: Request, body: bytes, max_images: int) -> list[Upload]:
    files = split_form(request.headers["content-type"], body, max_images)
    if files:
        if len(files) > max_images:
            raise _too_many_images(max_images)
        return _checked([Upload(name, content) for name, content in files])
    try:
        form = await _FormParser(request, _whole(body), max_images).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many_images(max_images) from error
        raise ApiError(400, "invalid_form", error.message) from error
    try:
        return _checked([Upload(file.filename, await file.read()) for file in _files_of(form)])
    finally:
        await form.close()


def _checked(files: list[Upload]) -> list[Upload]:
    if any(len(file.filename or "") > MAX_FILENAME for file in files):
        raise ApiError(400, "invalid_form", f"a file name may have at most {MAX_FILENAME} characters")
    return files


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _files_of(form: FormData) -> list[UploadFile]:
    files = []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            raise ApiError(400, "invalid_form", f"{name!r} is not a file: model and top_k belong in the query string")
        files.append(value)
    if not files:
        raise ApiError(400, "no_images", "the form holds no files: send each image as a file of the form")
    return files


class _FormParser(MultiPartParser):
    """Starlette's parser, with limits, that also refuses a form cut off in a file: Starlette would drop that file."""

    # Images stay in memory, where their bytes are bounded already: they belong on no disk.
    spool_max_size = 2**62

    def __init__(self, request: Request, chunks: AsyncGenerator[bytes, None], max_images: int) -> None:
        super().__init__(
            request.headers,
            self._check_end(chunks),
            max_files=max_images,
            max_fields=MAX_FORM_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def _check_end(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("The form ends before its closing boundary.")
