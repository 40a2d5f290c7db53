"""The images of a multipart/form-data body."""

import codecs
import re
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pdeinfer.text import counted
from serving.errors import RequestError
from serving.http.errors import too_many_images
from serving.http.query import QueryParameters
from serving.http.schemas import MAX_FILENAME

MAX_FIELDS = 32  # parts that are not images
MAX_HEADER_BYTES = 16 * 2**10  # a filename* of MAX_FILENAME characters fits
MAX_ALL_HEADER_BYTES = 256 * 2**10
MAX_BOUNDARY = 70  # by RFC 2046
# A search in all of a large body, within one call into C, would hold up the other threads.
PIECE_BYTES = 2**20
# RFC 2046 allows white space between a boundary and the end of its line. The parser reads it byte by byte.
_MAX_PADDING = 64
_MAX_LOOKED_AT = 8 * 2**10  # the beginning of a part that tells text from an image

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
# Up to the end if it is not closed, and possessive: it would otherwise be read again from each of its quotes.
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)
# RFC 8187: filename*=UTF-8'en'%E2%82%AC.png
_EXTENDED_FILENAME = re.compile(rb";\s*filename\*\s*=\s*(?:utf-8|iso-8859-1)'[^';]*'([^;\s]*)", re.IGNORECASE)
_AS_IT_IS = (b"", b"7bit", b"8bit", b"binary")  # transfer encodings that change nothing


class _Parts:
    """Callbacks of the parser: they collect the headers and the content of each part."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[bytes, bytes], bytes]] = []
        self.is_complete = False
        self.header_bytes = 0

    def on_part_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._content: list[bytes] = []

    def on_header_begin(self) -> None:
        self._name = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end].lower()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name] = self._value
        self.header_bytes += len(self._name) + len(self._value)
        if self.header_bytes > MAX_ALL_HEADER_BYTES:
            raise FormParserError(f"expected at most {MAX_ALL_HEADER_BYTES} bytes of headers in all parts")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts.append((self._headers, b"".join(self._content)))
        self._content.clear()

    def on_end(self) -> None:
        self.is_complete = True


def parse_form(
    body: bytes, boundary: bytes, max_images: int, parameters: QueryParameters
) -> list[tuple[str | None, bytes]]:
    """Return the filename and the content of every image of a form, at least one.

    A part is an image if it has a filename, an image's content type, or content that does not begin as text. Other
    parts, such as a submit button's, are ignored.

    Raises:
        RequestError: the form is malformed, holds no image or too many, or an image that is encoded or nested, or has
            a field that belongs in the query.
    """
    images = []
    for headers, content in _split(body, boundary, max_images):
        field, filename, is_file = _names(headers.get(b"content-disposition", b""))
        if is_file and not filename and not content:
            continue  # a file input of a browser in which no file was chosen
        if not is_file and _is_field(headers.get(b"content-type", b""), content):
            if place := parameters.place_of(field):
                raise RequestError("invalid_form", f"{field!r} {place}")
            continue
        _check_is_one_file(headers)
        if len(filename) > MAX_FILENAME:
            raise RequestError("invalid_form", f"expected a file name of at most {MAX_FILENAME} characters")
        images.append((filename or None, content))
    if not images:
        raise RequestError("no_images", "the form holds no image: send each as a file, like curl -F file=@seven.png")
    if len(images) > max_images:
        raise too_many_images(max_images)
    return images


def _split(body: bytes, boundary: bytes, max_images: int) -> list[tuple[dict[bytes, bytes], bytes]]:
    """Return the headers and the content of every part."""
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        expected = f"expected a boundary of 1 to {MAX_BOUNDARY} characters in the content type multipart/form-data"
        raise RequestError("invalid_form", f"{expected}, got {len(boundary)}")
    _limit_work(body, b"\r\n--" + boundary, max_images)
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_header_begin": parts.on_header_begin,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_end": parts.on_end,
            },
            max_header_size=MAX_HEADER_BYTES,
        )
        for start in range(0, len(body), PIECE_BYTES):
            parser.write(body[start : start + PIECE_BYTES])
    except FormParserError as error:
        raise RequestError("invalid_form", f"the form is malformed: {error}") from error
    if not parts.is_complete:
        raise RequestError("invalid_form", "the form ends before its closing boundary")
    return parts.parts


def _limit_work(body: bytes, delimiter: bytes, max_images: int) -> None:
    """Refuse a body that would keep the parser busy for long.

    The parser limits the size of headers itself. Apart from them its work grows with the number of delimiters, valid or
    not, and with the white space after each.
    """
    position = -1
    for _ in range(max_images + MAX_FIELDS + 2):
        position = _find(body, delimiter, position + 1)
        if position < 0:
            return
        start = position + len(delimiter)
        padding = body[start : start + _MAX_PADDING]
        if len(padding) == _MAX_PADDING and not padding.strip(b" \t"):
            raise RequestError("invalid_form", "the form is malformed: too much white space after a boundary")
    message = f"a form may hold at most {counted(max_images, 'image')} and {MAX_FIELDS} other fields"
    raise RequestError("too_many_images", message)


def _find(body: bytes, wanted: bytes, start: int) -> int:
    while start < len(body):
        found = body.find(wanted, start, start + PIECE_BYTES + len(wanted))
        if found >= 0:
            return found
        start += PIECE_BYTES
    return -1


def _names(disposition: bytes) -> tuple[str, str, bool]:
    """Return the name of the field, the filename ("" if there is none), and whether the part is a file."""
    _, options = parse_options_header(disposition)
    extended = _EXTENDED_FILENAME.search(_QUOTED.sub(b'""', disposition)) if b"filename*" in disposition else None
    filename = unquote_to_bytes(extended[1]) if extended else options.get(b"filename", b"")
    return _text(options.get(b"name", b"")), _text(filename), bool(extended) or b"filename" in options


def _check_is_one_file(headers: dict[bytes, bytes]) -> None:
    """Refuse an encoded file and several files in one part, which forms should not hold (RFC 7578, 4.3 and 4.7)."""
    encoding = headers.get(b"content-transfer-encoding", b"").strip().lower()
    if encoding not in _AS_IT_IS:
        found = f"Content-Transfer-Encoding: {_text(encoding)[:40]}"
        raise RequestError("invalid_form", f"the form has {found!r}: send each file as it is")
    if headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/mixed"):
        message = "the form has 'Content-Type: multipart/mixed': send each file as a field of its own"
        raise RequestError("invalid_form", message)


def _text(value: bytes) -> str:
    """Decode as UTF-8, or otherwise as Latin-1; a charset that the client names is ignored."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _is_field(content_type: bytes, content: bytes) -> bool:
    """Return whether a part without a filename is a field of text, and not an image."""
    if content_type.strip().lower().startswith((b"image/", b"application/octet-stream")):
        return False
    beginning = content[:_MAX_LOOKED_AT]
    if _CONTROL.search(beginning):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning, final=len(content) <= _MAX_LOOKED_AT)
    except UnicodeDecodeError:
        return False
    return True
