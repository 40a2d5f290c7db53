"""Broken and hostile images, and harmless ones that look like them, each with the outcome a server should give."""

import struct
import zlib
from typing import Literal

import numpy as np
import PIL.Image
from PIL import PngImagePlugin

from tests.images.image_makers import encode, join_png

Outcome = Literal["classified", "invalid_image", "image_too_large", "image_too_costly"]

LIMIT = 10_000  # pixels: the server's limit in these tests
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def picture(mode: str = "RGB", width: int = 48, height: int = 32) -> PIL.Image.Image:
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    return PIL.Image.fromarray(noise).convert(mode)


def png(
    width: int,
    height: int,
    *before: tuple[bytes, bytes],
    depth: int = 8,
    colour: int = 0,
    data: bytes | None = None,
) -> bytes:
    """Return a PNG written by hand, with chunks (kind, content) before its data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height)) if data is None else data
    return join_png((b"IHDR", header), *before, (b"IDAT", rows), (b"IEND", b""))


def tiff(size: tuple[int, int], tile: tuple[int, int], compression: int, data: bytes, next_ifd: int = 0) -> bytes:
    """Return a grey TIFF of one tile."""
    (width, height), (tile_width, tile_height) = size, tile
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, compression),
        (262, 1),
        (277, 1),
        (322, tile_width),
        (323, tile_height),
        (324, 8),
        (325, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", next_ifd)
    )


def bmp(width: int, height: int, *, compression: int = 0, pixels: bytes = b"") -> bytes:
    """Return an 8-bit BMP with any header."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(pixels), 0, 0, 256, 0)
    start = 14 + len(info) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + bytes(1024) + pixels


def gif(width: int, height: int) -> bytes:
    """Return a GIF whose screen and frame have this size, with the data of one pixel."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x44\x01\x00;"
    )


def jpeg_of_scans(count: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan; each repetition visits every pixel."""
    content = encode(picture("L", 100, 100), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * count + b"\xff\xd9"


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(encode(picture("L"), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def deflated_zeros(megabytes: int) -> bytes:
    deflater = zlib.compressobj(9)
    return b"".join(deflater.compress(bytes(10**6)) for _ in range(megabytes)) + deflater.flush()


def exif_of_loops() -> bytes:
    """Return EXIF whose directory points to itself."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)


def apng(frames: int, claimed: int) -> bytes:
    images = [picture("L", 8 + n) for n in range(frames)]
    content = encode(images[0], "PNG", save_all=True, append_images=images[1:])
    start = content.index(b"acTL")
    body = b"acTL" + struct.pack(">II", claimed, 0)
    return content[:start] + body + struct.pack(">I", zlib.crc32(body)) + content[start + 16 :]


_ZEROS = deflated_zeros(200)
_PNG = encode(picture(), "PNG")
_JPEG = encode(picture(), "JPEG")
_EMPTY_CHUNK = bytes(4) + b"vpAg" + struct.pack(">I", zlib.crc32(b"vpAg"))
_XMP = PngImagePlugin.PngInfo()
_XMP.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6" />' + "a" * 50_000)


def corpus() -> dict[str, tuple[bytes, Outcome]]:
    """Return the bytes and the outcome, with a limit of `LIMIT` pixels, of every file by its name."""
    files: dict[str, tuple[bytes, Outcome]] = {
        # Empty, and other than images.
        "empty": (b"", "invalid_image"),
        "nul.png": (b"\0", "invalid_image"),
        "text.png": (b"hello", "invalid_image"),
        "magic.png": (b"\x89PNG\r\n\x1a\n", "invalid_image"),
        "magic.jpg": (b"\xff\xd8\xff", "invalid_image"),
        "magic.webp": (b"RIFF\x24\0\0\0WEBPVP8 ", "invalid_image"),
        "script.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "invalid_image"),
        "entity.svg": (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>', "invalid_image"),
        "page.pdf": (b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj", "invalid_image"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file", "invalid_image"),
        "remote.wmf": (b"\xd7\xcd\xc6\x9a" + bytes(60), "invalid_image"),
        "object.pkl": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "invalid_image"),
        "other.ico": (encode(picture("RGB", 16, 16), "ICO"), "invalid_image"),
        "other.tga": (encode(picture(), "TGA"), "invalid_image"),
        "other.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "invalid_image"),
        # Sizes of zero, beyond the limit and absurd, with no data to match.
        "0x0.png": (png(0, 0), "invalid_image"),
        "0x9.png": (png(0, 9), "invalid_image"),
        "0x0.gif": (gif(0, 0), "invalid_image"),
        "0x0.bmp": (bmp(0, 0), "invalid_image"),
        "0x0.ppm": (b"P6 0 0 255\n", "invalid_image"),
        "0x0.jpg": (jpeg_of_size(0, 0), "invalid_image"),
        "negative.bmp": (bmp(-8, 8, pixels=bytes(64)), "image_too_large"),
        "wide.png": (png(LIMIT + 1, 1), "image_too_large"),
        "huge.png": (png(60_000, 60_000, data=b""), "image_too_large"),
        "endless.png": (png(2**31 - 1, 2**31 - 1, data=b""), "image_too_large"),
        "huge.jpg": (jpeg_of_size(65_500, 65_500), "image_too_large"),
        "huge.gif": (gif(65_535, 65_535), "image_too_large"),
        "huge.bmp": (bmp(2**31 - 1, 2**31 - 1), "image_too_large"),
        "huge.ppm": (b"P6 100000 100000 255\n", "image_too_large"),
        "huge.tiff": (tiff((2**32 - 1, 2**32 - 1), (16, 16), 1, bytes(256)), "image_too_large"),
        "huge.webp": (
            b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f\x88\x88\x08\x08\0\0\0\0",
            "image_too_large",
        ),
        # Bombs: a few bytes that decode to gigabytes of pixels or hours of work.
        "bomb.png": (png(30_000, 30_000, data=_ZEROS), "image_too_large"),
        "bomb.tiff": (tiff((8, 8), (16_384, 16_384), 8, _ZEROS), "image_too_large"),
        "endless-tile.tiff": (tiff((8, 8), (2**32 - 1, 2**32 - 1), 5, b"\x80"), "image_too_large"),
        "runs.bmp": (bmp(60_000, 60_000, compression=1, pixels=b"\xff\x01" * 1000), "image_too_large"),
        "segments.jpg": (_JPEG[:2] + b"\xff\xfe\0\2" * 1_000_000 + _JPEG[2:], "image_too_costly"),
        "chunks.png": (_PNG[:33] + _EMPTY_CHUNK * 150_000 + _PNG[33:], "classified"),
        "no-end.jpg": (_JPEG[:-2] + b"\xff" * 1_000_000, "classified"),
        "scans.jpg": (jpeg_of_scans(2000), "classified"),
        "text-bomb.png": (png(8, 8, (b"zTXt", b"a\0\0" + _ZEROS)), "classified"),  # never inflated
        "profile-bomb.png": (png(8, 8, (b"iCCP", b"a\0\0" + _ZEROS)), "classified"),
        "exif-bomb.png": (png(8, 8, (b"zTXt", b"Raw profile type exif\0\0" + _ZEROS)), "invalid_image"),
        "more-data.png": (png(8, 8, data=_ZEROS), "classified"),
        # Headers that lie, and loops.
        "too-little.png": (png(90, 90, data=zlib.compress(bytes(9))), "invalid_image"),
        "not-zlib.png": (png(8, 8, data=b"no zlib data"), "invalid_image"),
        "bad-depth.png": (png(8, 8, depth=3), "invalid_image"),
        "bad-colour.png": (png(8, 8, colour=9), "invalid_image"),
        "no-palette.png": (png(8, 8, colour=3), "invalid_image"),
        "bad-checksum.png": (_PNG[:40] + bytes([_PNG[40] ^ 1]) + _PNG[41:], "invalid_image"),
        "chunk-length.png": (_PNG[:33] + b"\xff\xff\xff\xff" + _PNG[37:], "classified"),
        "runs-over.bmp": (bmp(9, 9, compression=1, pixels=b"\xff\x01" * 1000 + b"\0\1"), "invalid_image"),
        "loop.tiff": (tiff((16, 16), (16, 16), 1, bytes(256), next_ifd=8 + 256), "classified"),
        # Valid, if unusual.
        "exif-loop.jpg": (encode(picture(), "JPEG", exif=exif_of_loops()), "classified"),
        "exif-huge.jpg": (encode(picture(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 65_000), "classified"),
        "exif-huge.webp": (encode(picture(), "WEBP", exif=b"Exif\0\0" + b"\xff" * 100_000), "classified"),
        "xmp-huge.png": (encode(picture(), "PNG", pnginfo=_XMP), "classified"),
        "profile-huge.jpg": (encode(picture(), "JPEG", icc_profile=b"\xff" * 150_000), "classified"),
        "frames.png": (apng(3, 3), "classified"),
        "claimed-frames.png": (apng(2, 2**31 - 1), "classified"),
        "frames.gif": (encode(picture("P"), "GIF", save_all=True, append_images=[picture("P")] * 50), "classified"),
        "frames.webp": (encode(picture(), "WEBP", save_all=True, append_images=[picture("L")] * 9), "classified"),
        "zip-behind.png": (_PNG + b"PK\x03\x04" + bytes(1000), "classified"),
        "page-behind.jpg": (_JPEG + b"<html><script>alert(1)</script>", "classified"),
        "comment.jpg": (encode(picture(), "JPEG", comment=b"<?php system('id'); ?>"), "classified"),
        "png-named.jpg": (_PNG, "classified"),
        "jpeg-named.exe": (_JPEG, "classified"),
        "16-bit.png": (encode(PIL.Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), "classified"),
        "transparent-palette.png": (encode(picture("P"), "PNG", transparency=bytes(range(256))), "classified"),
        "alpha.png": (encode(picture("RGBA"), "PNG"), "classified"),
        "grey-alpha.png": (encode(picture("LA"), "PNG"), "classified"),
        "one-bit.png": (encode(picture("1"), "PNG"), "classified"),
        "cmyk.jpg": (encode(picture("CMYK"), "JPEG"), "classified"),
        "cmyk.tiff": (encode(picture("CMYK"), "TIFF"), "classified"),
        "lab.tiff": (encode(picture("LAB"), "TIFF"), "classified"),
        "float.tiff": (encode(PIL.Image.new("F", (9, 9), float("nan")), "TIFF"), "invalid_image"),
        "1x1.png": (png(1, 1), "classified"),
        "narrow.png": (png(1, LIMIT), "classified"),
        "../../../etc/passwd": (_PNG, "classified"),
        "<script>alert(1)</script>.png": (_PNG, "classified"),
    }
    for file_format in FORMATS:
        content = encode(picture(), file_format)
        for part in (0.1, 0.5, 0.9):
            files[f"cut-{part}.{file_format.lower()}"] = (content[: int(len(content) * part)], "invalid_image")
    return files
