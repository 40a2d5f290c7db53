"""Makes PNG and WEBP files acceptable to Pillow if only their edges are damaged, and not if pixels are missing.

Pillow refuses a PNG for one bad checksum in a comment, and a WEBP for a missing last byte, unless a switch for the
whole process is set. Browsers show both. But Pillow takes a PNG whose pixels end early for one that is black from
there on. The functions take and return a file's bytes.
"""

import zlib
from collections.abc import Iterator

from pdeinfer.errors import ImageError

_PNG_START = 8  # bytes of the signature
_PNG_FRAME = 12  # bytes of a chunk's length, kind and checksum
_PNG_KEPT = (b"tRNS", b"eXIf", b"acTL", b"fcTL")  # the last two place the first frame of an animation
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_ANCILLARY = 0x20  # bit of a PNG chunk's first letter: decoders may ignore it

_RIFF_START = 12
_WEBP_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04}  # with the bit of VP8X that announces it


def clean_png(content: bytes, name: str, max_chunks: int) -> bytes:
    """Return a PNG without the chunks that do not affect its pixels: they may be damaged, or very large.

    Transparency, orientation and the first frame's place are kept if their checksums match. Later frames are dropped.

    Raises:
        ImageError: there are more than `max_chunks`; `name` is the image's name in the error.
    """
    kept, start = [], 0
    for number, (kind, position, end) in enumerate(_png_chunks(content)):
        if number == max_chunks:
            raise ImageError(f"{name}: expected at most {max_chunks} chunks in a PNG, got more")
        if kind[0] & _ANCILLARY and not _is_needed(content, kind, position, end):
            kept.append(content[start:position])
            start = end
    return _open_end(b"".join([*kept, content[start:]]) if kept else content)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of every chunk before the end of the image; the last one may be cut off."""
    position = _PNG_START
    while len(kind := content[position + 4 : position + 8]) == 4 and kind != b"IEND":
        end = position + _PNG_FRAME + int.from_bytes(content[position : position + 4], "big")
        yield kind, position, end
        position = end


def _is_needed(content: bytes, kind: bytes, position: int, end: int) -> bool:
    if kind in _PNG_TEXTS:
        if not content.startswith(_PNG_ORIENTATION_TEXTS, position + 8):
            return False
    elif kind not in _PNG_KEPT:
        return False
    return _is_intact(content, position, end)


def _is_intact(content: bytes, position: int, end: int) -> bool:
    checksum = int.from_bytes(content[end - 4 : end], "big")
    return zlib.crc32(memoryview(content)[position + 4 : end - 4]) == checksum


def _open_end(content: bytes) -> bytes:
    """Return a PNG without the last byte of its compressed pixels, which belongs to the checksum of the whole.

    With that byte Pillow takes the end of the data for the end of the image. Without it Pillow asks for more data if
    rows are missing, and refuses the file as truncated. It does not look at that checksum then, nor at the one of the
    shortened chunk: those of the chunks, tested here, replace them. Where one is wrong, the file stays as it is.
    """
    places = [
        (position, end)
        for kind, position, end in _png_chunks(content)
        if kind == b"IDAT" and end > position + _PNG_FRAME
    ]
    if not places or not all(_is_intact(content, *place) for place in places):
        return content
    view, (position, end) = memoryview(content), places[-1]
    length = end - position - _PNG_FRAME - 1
    return b"".join([view[:position], length.to_bytes(4, "big"), view[position + 4 : end - 5], view[end - 4 :]])


def end_webp(content: bytes, max_chunks: int) -> bytes:
    """Return a truncated WEBP without its incomplete last chunk and what follows `max_chunks`.

    A file that is not truncated, or that lacks its first image, is returned as it is.
    """
    if _RIFF_START <= 8 + int.from_bytes(content[4:8], "little") <= len(content):
        return content
    chunks, announced, has_image = bytearray(), 0, False
    position = _RIFF_START
    for _ in range(max_chunks):
        head = content[position : position + 8]
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        end = position + 8 + size
        if len(head) < 8 or end > len(content):
            break
        chunks += content[position:end] + bytes(size % 2)
        has_image = has_image or kind in (b"VP8 ", b"VP8L", b"ANMF")
        announced |= _WEBP_METADATA.get(kind, 0)
        position = end + size % 2
    if not has_image:
        return content
    if chunks.startswith(b"VP8X"):
        missing = sum(_WEBP_METADATA.values()) & ~announced
        chunks[8] &= ~missing & 0xFF
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + bytes(chunks)
