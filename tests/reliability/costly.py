"""Requests that cost a server much, in few bytes or many."""

import gzip
from collections.abc import Callable
from io import BytesIO

import PIL.Image

from benchmarks.serving.load import files_request, post
from tests.images.image_makers import gif_of_comments, padded_jpeg

# In each format, about the largest image that the server decodes.
FORMATS: dict[str, tuple[str, tuple[int, int], str, dict[str, object]]] = {
    "one-row-png": ("RGBA", (7_500_000, 1), "PNG", {}),
    "lossless-webp": ("RGBA", (3_600, 3_600), "WEBP", {"lossless": True, "method": 0}),
    "transparent-png": ("RGBA", (4_200, 4_200), "PNG", {}),
    "png": ("RGB", (6_500, 6_500), "PNG", {}),
    "progressive-jpeg": ("RGB", (6_000, 6_000), "JPEG", {"progressive": True, "subsampling": 0}),
    "large-jpeg": ("RGB", (6_499, 6_500), "JPEG", {}),
}
MIB = 2**20


def largest(name: str) -> bytes:
    mode, size, file_format, options = FORMATS[name]
    file = BytesIO()
    PIL.Image.new(mode, size).save(file, file_format, **options)
    return post("/classify", file.getvalue(), "Content-Type: image/png")


def jpeg_of_segments(size: int) -> bytes:
    image = padded_jpeg(0)
    return image[:2] + b"\xff\xe3\0\2" * (size // 4) + image[2:]


def gzipped(body: bytes, content_type: str) -> bytes:
    return post("/classify", gzip.compress(body, 1), f"Content-Type: {content_type}", "Content-Encoding: gzip")


def false_boundaries(size: int) -> bytes:
    start = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    return start + b"\r\n--bx" * (size // 6)


# Requests that cost much; each is sent by many clients at once. Inflated bodies of up to 4 MiB may have been compressed
# at any ratio.
REQUESTS: dict[str, Callable[[], bytes]] = {
    **{name: lambda name=name: largest(name) for name in FORMATS},  # type: ignore[misc]
    "gif-of-comments": lambda: post("/classify", gif_of_comments(31 * MIB), "Content-Type: image/gif"),
    "jpeg-of-segments": lambda: post("/classify", jpeg_of_segments(31 * MIB), "Content-Type: image/jpeg"),
    "gzipped-jpeg-of-segments": lambda: gzipped(jpeg_of_segments(4 * MIB - 1000), "image/jpeg"),
    "padded-jpeg": lambda: post("/classify", padded_jpeg(31 * MIB), "Content-Type: image/jpeg"),
    "false-boundaries": lambda: post(
        "/classify", false_boundaries(31 * MIB), "Content-Type: multipart/form-data; boundary=b"
    ),
    "gzipped-false-boundaries": lambda: gzipped(false_boundaries(4 * MIB - 1000), "multipart/form-data; boundary=b"),
    "many-files": lambda: files_request([b"x" * (MIB // 2)] * 60),
    "numbers": lambda: post("/v2/models/digits-pde/infer", b'{"inputs":[' + b"0," * (10 * MIB) + b"0]}"),
    "base64": lambda: post("/classify", b'{"images":["' + b"A" * (30 * MIB) + b'"]}', "Content-Type: application/json"),
}


def clients(request: bytes, most: int) -> int:
    """Return how many clients can send a request at once without more bodies than the server takes."""
    return max(2, min(most, 90 * MIB // len(request)))
