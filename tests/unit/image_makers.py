"""Images to decode, and the inputs of networks to decode them for."""

import io
import struct
import zlib

import numpy as np
import PIL.Image

from pdeinfer.presets import Fit, InputSpec


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
