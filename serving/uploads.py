"""The images of a request body: a form of files, or one raw image."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.errors import ApiError

# A form is for files; these bound what the parser takes before anything else in it is refused.
MAX_FORM_FIELDS = 8
MAX_FIELD_BYTES = 64 * 2**10

# The request body of an operation that takes images, for the OpenAPI document.
REQUEST_BODY = {
    "required": True,
    "description": "One or many images as the files of a form, under any field name; or the bytes of one image.",
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
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it was sent: its file name, if it came with one, and its bytes."""

    filename: str | None
    content: bytes


async def read_uploads(request: Request, max_images: int) -> list[Upload]:
    """Return the images of the body, at least one.

    Raises:
        ApiError: 415 for another content type, 400 for a broken form or one without files, 413 for too many files.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        return await _read_form(request, max_images)
    if content_type.startswith("image/") or content_type == "application/octet-stream":
        return [Upload(None, await request.body())]
    raise ApiError(
        415,
        "unsupported_media_type",
        "expected the content type multipart/form-data, image/* or application/octet-stream, "
        f"got {content_type or 'none'}",
    )


async def _read_form(request: Request, max_images: int) -> list[Upload]:
    try:
        form = await _FormParser(request, max_images).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise ApiError(413, "too_many_images", f"a request may hold at most {max_images} images") from error
        raise ApiError(400, "invalid_form", error.message) from error
    try:
        return [Upload(file.filename, await file.read()) for file in _files_of(form)]
    finally:
        await form.close()


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

    def __init__(self, request: Request, max_images: int) -> None:
        super().__init__(
            request.headers,
            self._check_end(request.stream()),
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
