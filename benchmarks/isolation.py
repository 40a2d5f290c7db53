"""Measures what it costs to decode an image in a process of its own, beside decoding it in the caller's.

    python -m benchmarks.isolation

Both take turns on the same images, which are smooth noise. docs/decisions/0012 has the figures.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import PIL.Image

from benchmarks.machine import describe
from pdeinfer import PRESETS, InputSpec
from pdeinfer.images.convert import to_array
from pdeinfer.images.isolation import IsolatedDecoders
from serving.process import freed_memory

TURNS = 41
SPEC = PRESETS["cifar10-global"].input
IMAGES: dict[str, tuple[tuple[int, int], str, dict[str, object]]] = {
    "JPEG 640 x 480": ((640, 480), "JPEG", {"quality": 95}),
    "JPEG 1600 x 1200": ((1600, 1200), "JPEG", {"quality": 90}),
    "JPEG 4000 x 3000": ((4000, 3000), "JPEG", {"quality": 92}),
    "PNG 1600 x 1200": ((1600, 1200), "PNG", {}),
    "WEBP 1600 x 1200": ((1600, 1200), "WEBP", {}),
}


def main() -> int:
    """Print a row per image."""
    freed_memory.unmap_large()  # as in the server
    print("\n".join(describe()))
    print(f"\nmedian of {TURNS} turns in ms\n{'image':20}{'file':>10}{'here':>10}{'process':>10}{'ratio':>8}")
    with IsolatedDecoders() as decoders:
        for name, (size, file_format, options) in IMAGES.items():
            content = encode(size, file_format, options)
            decoded = [(seconds(to_array, content), seconds(decoders.to_array, content)) for _ in range(TURNS)]
            medians = [1000 * statistics.median(times) for times in zip(*decoded, strict=True)]
            ratio = medians[1] / medians[0]
            print(f"{name:20}{len(content) / 1000:7.0f} kB{medians[0]:10.2f}{medians[1]:10.2f}{ratio:8.2f}")
    return 0


def encode(size: tuple[int, int], file_format: str, options: dict[str, object]) -> bytes:
    """Return an image of smooth noise in a format."""
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC).save(file, file_format, **options)
    return file.getvalue()


def seconds(decode: Callable[[bytes, InputSpec], object], content: bytes) -> float:
    """Return how long decoding takes."""
    started = time.perf_counter()
    decode(content, SPEC)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
