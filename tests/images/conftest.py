"""Decoders of decoding processes, and what they decode."""

from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from pdeinfer.images.isolation import IsolatedDecoder, IsolatedDecoders
from pdeinfer.images.limits import DecodingLimits
from tests.images.image_makers import encode, random_pixels, rgb

NEEDS_STATM = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory, as Linux can")

SPEC = rgb(32, 32)
SMALL = encode(PIL.Image.fromarray(random_pixels(64, 64, 3)), "PNG")
LIMITS = DecodingLimits(bytes=64 * 2**20, seconds=1)


@pytest.fixture(scope="module")
def pool() -> Iterator[IsolatedDecoders]:
    with IsolatedDecoders() as decoders:
        yield decoders


@pytest.fixture
def decoder(pool: IsolatedDecoders) -> Iterator[IsolatedDecoder]:
    taken = pool.take()
    assert isinstance(taken, IsolatedDecoder)
    yield taken
    pool.give(taken)
