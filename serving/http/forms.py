"""The files of a form whose body is complete, read as browsers, curl and client libraries write them."""

import re

# The parts of a form are found by their boundary, of the characters that RFC 2046 allows.
_BOUNDARY = re.compile(r"""multipart/form-data; *boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1""", re.ASCII)
_HEAD = re.compile(
    rb'Content-Disposition: form-data; name="[^"\\%\x00-\x1f\x7f-\xff]*"; filename="([^"\\%\x00-\x1f\x7f-\xff]+)"'
    rb"(?:\r\nContent-Type: [^\x00-\x1f\x7f-\xff]*)?",
    re.IGNORECASE,
)


def split_form(content_type: str, body: bytes, max_files: int) -> list[tuple[str, bytes]] | None:
    """Return the name and content of every file, or None where anything in the form is not plain.

    A form of which this says None may be well-formed: a parser has to tell. Of one of more than `max_files`, only
    `max_files + 1` are returned.
    """
    found = _BOUNDARY.fullmatch(content_type)
    if found is None:
        return None
    delimiter = b"\r\n--" + found[2].encode()
    start, *parts = (b"\r\n" + body).split(delimiter, max_files + 2)
    if start or not parts:
        return None
    if parts.pop() not in (b"--\r\n", b"--") and len(parts) <= max_files:
        return None
    files = []
    for part in parts:
        head, separator, content = part.partition(b"\r\n\r\n")
        plain = _HEAD.fullmatch(head, 2) if head.startswith(b"\r\n") and separator else None
        if plain is None:
            return None
        files.append((plain[1].decode(), content))
    return files
