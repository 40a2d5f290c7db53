"""Fuzz target: any bytes are decoded to an array of the right shape, or refused with an ImageError.

python -m tests.fuzz.images FOLDER_OF_SEEDS -max_total_time=60 -timeout=5 -rss_limit_mb=1024
"""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["PIL", "pdeinfer.images"]):
    from PIL import (  # noqa: F401  # imported to be instrumented
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    from pdeinfer.images.convert import to_array

import numpy as np

from pdeinfer import ImageError, InputSpec
from tests.serving.hostile_images import LIMIT, corpus

WORDS = (
    "IHDR",
    "IDAT",
    "PLTE",
    "tRNS",
    "acTL",
    "fcTL",
    "iCCP",
    "eXIf",
    "GIF89a",
    "RIFF",
    "VP8X",
    "VP8L",
    "ANIM",
    "II*",
    "P6",
)

SPECS = (
    InputSpec(height=8, width=6, channels=1, mean=(0.0,), std=(1.0,), fit="pad"),
    InputSpec(height=6, width=8, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop"),
)


def seeds() -> list[bytes]:
    """Return inputs to start from: the smaller hostile images, which include every format."""
    return [content for content, _ in corpus().values() if len(content) < 10_000]


def decode_any(data: bytes) -> None:
    for spec in SPECS:
        try:
            pixels = to_array(data, spec, "image", max_pixels=LIMIT)
        except ImageError:
            continue
        assert pixels.shape == (spec.height, spec.width, spec.channels)
        assert pixels.dtype == np.uint8


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, decode_any)
    atheris.Fuzz()
