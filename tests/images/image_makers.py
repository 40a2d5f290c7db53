"""Images to decode, written by Pillow or byte by byte, and input specifications to decode them for."""

import io
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer.images.formats import HAS_AVIF
from pdeinfer.spec.networks import Fit, InputSpec


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


def as_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of a uint8 (H, W, 1) or (H, W, 3) image."""
    return encode(PIL.Image.fromarray(pixels.squeeze()), "PNG")


# Pillow warns of it: five entries are announced, and the file ends.
DAMAGED_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0"


def avif(image: PIL.Image.Image, **options: object) -> bytes:
    """Return an AVIF; skip the test if Pillow cannot write it."""
    if not HAS_AVIF:
        pytest.skip("this Pillow has no AVIF")
    return encode(image, "AVIF", speed=10, **options)


def heic(image: PIL.Image.Image, **options: object) -> bytes:
    """Return a HEIC; skip the test without pillow-heif."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def gif_of_comments(size: int) -> bytes:
    """Return a GIF of one pixel with a comment of one-byte blocks: Pillow takes dozens of bytes for each."""
    image = encode(PIL.Image.new("P", (1, 1)), "GIF")
    start = image.index(b",")
    return image[:start] + b"!\xfe" + b"\1a" * (size // 2) + b"\0" + image[start:]


def padded_jpeg(size: int) -> bytes:
    """Return a JPEG with padding before its first segment, which Pillow reads byte by byte."""
    image = encode(PIL.Image.new("L", (8, 8)), "JPEG")
    return image[:2] + b"\xff" * size + image[2:]


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG written by hand; `rows` are the scan lines, each with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return join_png((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def join_png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of chunks (kind, content)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the kinds of a PNG's chunks, with the whole chunks."""
    chunks, position = [], 8
    while position < len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        chunks.append((content[position + 4 : position + 8], content[position:end]))
        position = end
    return chunks


@dataclass(frozen=True)
class TiffLayout:
    """How a TIFF stores its samples: the values of its tags, by their names in the TIFF 6.0 specification."""

    bits: int = 8
    photometric: int = 1
    order: str = "<"
    planar: int = 1
    fill_order: int = 1
    compression: int = 1  # or 8, deflate
    rows_per_strip: int | None = None
    tile: tuple[int, int] | None = None  # height, width
    is_big: bool = False
    extra_samples: tuple[int, ...] = ()
    sample_format: int = 1
    colour_map: tuple[int, ...] = ()
    more_tags: tuple[tuple[int, tuple[int, ...]], ...] = ()


def tiff(samples: np.ndarray, layout: TiffLayout) -> bytes:
    """Return a TIFF written by hand from unsigned samples (H, W, S)."""
    order = layout.order
    blocks = [_pack_block(block, layout) for block in _blocks(samples, layout)]
    height, width, count = samples.shape
    start = 16 if layout.is_big else 8
    places = list(accumulate(map(len, blocks), initial=start))[:-1]
    body = b"".join(blocks)
    body += bytes(len(body) % 2)
    offsets, lengths = (324, 325) if layout.tile else (273, 279)
    tags: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (layout.bits,) * count,
        259: (layout.compression,),
        262: (layout.photometric,),
        277: (count,),
        offsets: tuple(places),
        lengths: tuple(map(len, blocks)),
        **({322: (layout.tile[1],), 323: (layout.tile[0],)} if layout.tile else {}),
        **({} if layout.tile else {278: (layout.rows_per_strip or height,)}),
        266: (layout.fill_order,),
        284: (layout.planar,),
        339: (layout.sample_format,) * count,
        **({338: layout.extra_samples} if layout.extra_samples else {}),
        **({320: layout.colour_map} if layout.colour_map else {}),
        **dict(layout.more_tags),
    }
    word, entry, counter, room = ("Q", "HHQ", "Q", 8) if layout.is_big else ("L", "HHL", "H", 4)
    directory = start + len(body)
    after = directory + struct.calcsize(f"={counter}{word}") + len(tags) * (struct.calcsize(f"={entry}") + room)
    entries, outside = b"", b""
    for tag, values in sorted(tags.items()):
        kind, code = (4, "L") if max(values) > 65_535 or tag in (256, 257, offsets, lengths) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > room:
            field = struct.pack(order + word, after + len(outside))
            outside += packed
        else:
            field = packed.ljust(room, b"\0")
        entries += struct.pack(order + entry, tag, kind, len(values)) + field
    magic = b"II" if order == "<" else b"MM"
    head = (
        struct.pack(f"{order}HHHQ", 43, 8, 0, directory) if layout.is_big else struct.pack(f"{order}HL", 42, directory)
    )
    number, last = struct.pack(order + counter, len(tags)), struct.pack(order + word, 0)
    return magic + head + body + number + entries + last + outside


def _blocks(samples: np.ndarray, layout: TiffLayout) -> list[np.ndarray]:
    planes = [samples] if layout.planar == 1 else [samples[..., band : band + 1] for band in range(samples.shape[2])]
    blocks = []
    for plane in planes:
        height, width = layout.tile or (layout.rows_per_strip or plane.shape[0], plane.shape[1])
        for top in range(0, plane.shape[0], height):
            for left in range(0, plane.shape[1], width):
                part = plane[top : top + height, left : left + width]
                if layout.tile:
                    part = np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0)))
                blocks.append(part)
    return blocks


def _pack_block(block: np.ndarray, layout: TiffLayout) -> bytes:
    rows = []
    for row in block.reshape(len(block), -1):
        if layout.bits == 16:
            rows.append(row.astype(f"{layout.order}u2").tobytes())
        else:
            bits = "".join(f"{value:0{layout.bits}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            rows.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    packed = b"".join(rows)
    if layout.fill_order == 2:
        packed = bytes(int(f"{value:08b}"[::-1], 2) for value in packed)
    return zlib.compress(packed) if layout.compression == 8 else packed


needs_proc = pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no /proc")


def unreadable(path: Path) -> Path:
    """Make a file that can be opened, and whose read fails with EIO as on a damaged disk."""
    path.symlink_to("/proc/self/mem")
    return path


# Small images of many kinds, to damage or to decode in many threads.
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
