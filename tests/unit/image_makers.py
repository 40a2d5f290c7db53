"""Images to decode, and the inputs of networks to decode them for."""

import io
import struct
import zlib

import numpy as np
import PIL.Image

from pdeinfer.spec.presets import Fit, InputSpec


def grey(height: int, width: int, fit: Fit = "crop") -> InputSpec:
    return InputSpec(height, width, 1, mean=(0.5,), std=(0.5,), fit=fit)


def rgb(height: int, width: int, fit: Fit = "crop") -> InputSpec:
    return InputSpec(height, width, 3, mean=(0.5,) * 3, std=(0.5,) * 3, fit=fit)


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: PIL.Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG written by hand: `rows` are the scan lines, each with its filter byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# Small images of many kinds, to be damaged or decoded by many at once.
SEEDS = [
    encode(PIL.Image.fromarray(random_pixels(9, 9, 3)), file_format)
    for file_format in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
] + [
    encode(PIL.Image.fromarray(random_pixels(9, 9)).convert("P"), "GIF", transparency=3),
    encode(PIL.Image.fromarray(random_pixels(9, 9, 4)), "TIFF", compression="tiff_lzw"),
    encode(
        PIL.Image.new("RGB", (9, 9)),
        "JPEG",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    ),
]
