"""Isolated decoding of AVIF and HEIC: within their estimates, in no other process, as their pictures look."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image
import pytest

from pdeinfer import ImageError, ImageTooCostlyError, ImageTooLargeError
from pdeinfer.images.convert import to_array
from pdeinfer.images.cost import Estimate, is_plain
from pdeinfer.images.isolation import IsolatedDecoder, IsolatedDecoders
from pdeinfer.images.limits import DecodingLimits
from serving.settings import Settings
from tests.images.conftest import LIMITS, NEEDS_STATM, SPEC
from tests.images.image_makers import avif, encode, grey, heic, random_pixels

pytestmark = NEEDS_STATM

ORIENTATION = 0x0112
Encoder: TypeAlias = Callable[..., bytes]
avif_or_heic = pytest.mark.parametrize("encoder", [avif, heic])


def open_picture(content: bytes) -> PIL.Image.Image:
    """Open an AVIF or HEIC in this process."""
    if b"avif" in content[:32]:
        return PIL.Image.open(io.BytesIO(content))
    return pytest.importorskip("pillow_heif").HeifImageFile(io.BytesIO(content))


def random_picture(mode: str, side: int) -> PIL.Image.Image:
    if mode == "I;16":
        grey = PIL.Image.fromarray(random_pixels(16, 16)).resize((side, side))
        return PIL.Image.fromarray(np.asarray(grey, np.uint16) * 257)
    return PIL.Image.fromarray(random_pixels(16, 16, 3)).convert(mode).resize((side, side))


def ten_bits(mode: str, side: int) -> bytes:
    """Return a HEIC of random colours of 10 bits, which libheif decodes to 16 and 8 bits."""
    pillow_heif = pytest.importorskip("pillow_heif")
    blocks = np.random.default_rng(0).integers(0, 65_536, (16, 16, len(mode)), dtype=np.uint16)
    pixels = blocks.repeat(side // 16, axis=0).repeat(side // 16, axis=1)
    file = io.BytesIO()
    pillow_heif.encode(f"{mode};16", (side, side), pixels.tobytes(), file, chroma=444)
    return file.getvalue()


def assert_decodes_within_its_estimate(decoder: IsolatedDecoder, content: bytes) -> None:
    with open_picture(content) as picture:
        expected = to_array(picture, SPEC)

    estimate = decoder.decode(content, SPEC, "x", DecodingLimits(bytes=0))
    assert isinstance(estimate, Estimate)
    decoded = decoder.decode(content, SPEC, "x", DecodingLimits(bytes=estimate.bytes))

    assert isinstance(decoded, np.ndarray)
    np.testing.assert_array_equal(decoded, expected)


@avif_or_heic
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("side", [16, 64, 1600])
def test_an_avif_or_heic_is_decoded_within_its_estimate(
    decoder: IsolatedDecoder, encoder: Encoder, mode: str, side: int
) -> None:
    assert_decodes_within_its_estimate(decoder, encoder(random_picture(mode, side)))


def test_a_phone_s_heic_of_24_megapixels_fits_into_the_default_of_the_server(decoder: IsolatedDecoder) -> None:
    content = heic(PIL.Image.new("RGB", (571, 428)), tile_size=256)
    estimate = decoder.decode(content, SPEC, "x", DecodingLimits(bytes=0))

    assert isinstance(estimate, Estimate)
    assert 100 * estimate.bytes < Settings().decoding_bytes


@pytest.mark.parametrize("side", [16, 1600])
def test_heic_files_of_10_bits_and_of_tiles_are_decoded_within_their_estimate(
    decoder: IsolatedDecoder, side: int
) -> None:
    contents = [ten_bits("RGB", side), ten_bits("RGBA", side), heic(random_picture("I;16", side))]
    tiled = [heic(random_picture("RGB", side), tile_size=512, chroma=chroma) for chroma in (420, 422, 444)]
    for content in [*contents, *tiled]:
        assert_decodes_within_its_estimate(decoder, content)


def with_sides_of_16(content: bytes) -> bytes:
    """Return an AVIF or HEIC whose header says that it has 16 x 16 pixels."""
    sides = content.index(b"ispe") + 8
    return content[:sides] + 2 * (16).to_bytes(4, "big") + content[sides + 8 :]


def test_an_avif_with_more_pixels_than_its_header_says_is_too_costly(pool: IsolatedDecoders) -> None:
    content = with_sides_of_16(avif(PIL.Image.new("RGB", (6000, 6000))))

    with pytest.raises(ImageTooCostlyError):
        pool.to_array(content, SPEC, "x", replace(LIMITS, bytes=8 * 2**20))


def test_a_heic_with_more_pixels_than_its_header_says_is_refused(pool: IsolatedDecoders) -> None:
    content = with_sides_of_16(heic(PIL.Image.new("RGB", (3000, 3000))))

    with pytest.raises(ImageError):  # older libheif fail for want of memory, newer ones compare the sizes
        pool.to_array(content, SPEC, "x", replace(LIMITS, bytes=8 * 2**20))


@avif_or_heic
def test_an_avif_or_heic_that_takes_more_memory_than_estimated_is_too_costly(
    decoder: IsolatedDecoder, encoder: Encoder
) -> None:
    class Underestimated(DecodingLimits):
        def address_space(self, file_bytes: int) -> int:  # noqa: ARG002
            return 4 * 2**20

    content = encoder(PIL.Image.new("RGB", (1600, 1600)))

    with pytest.raises(ImageTooCostlyError):
        decoder.decode(content, SPEC, "x", Underestimated())


@avif_or_heic
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_avif_or_heic_is_refused(pool: IsolatedDecoders, encoder: Encoder, part: float) -> None:
    content = encoder(PIL.Image.fromarray(random_pixels(64, 64, 3)))

    with pytest.raises(ImageError, match=r"damaged or unsupported (AVIF|HEIF)"):
        pool.to_array(content[: int(part * len(content))], SPEC)


@avif_or_heic
def test_a_damaged_avif_or_heic_is_refused(pool: IsolatedDecoders, encoder: Encoder) -> None:
    content = bytearray(encoder(PIL.Image.fromarray(random_pixels(64, 64, 3))))
    pixels = content.index(b"mdat") + 4
    content[pixels:] = bytes(len(content) - pixels)

    with pytest.raises(ImageError, match=r"damaged or unsupported (AVIF|HEIF)"):
        pool.to_array(bytes(content), SPEC)


@avif_or_heic
def test_an_avif_or_heic_with_more_pixels_than_the_limit_is_refused(pool: IsolatedDecoders, encoder: Encoder) -> None:
    with pytest.raises(ImageTooLargeError):
        pool.to_array(encoder(PIL.Image.new("L", (64, 64))), SPEC, limits=replace(LIMITS, pixels=4095))


@avif_or_heic
def test_an_avif_or_heic_is_decoded_in_no_other_process(
    pool: IsolatedDecoders, encoder: Encoder, tmp_path: Path
) -> None:
    content = encoder(PIL.Image.new("L", (64, 64), 100))
    path = tmp_path / "photo.jpg"  # the content counts
    path.write_bytes(content)

    assert not is_plain(content)
    with pytest.raises(ImageError, match="process with limits"):
        to_array(path, SPEC)
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    for source in (path, content, pipe):
        np.testing.assert_array_equal(pool.to_array_where_needed(source, SPEC), pool.to_array(path, SPEC))
    writer.join()


@avif_or_heic
def test_a_damaged_avif_or_heic_has_the_name_of_its_caller(pool: IsolatedDecoders, encoder: Encoder) -> None:
    content = encoder(PIL.Image.new("L", (64, 64)))[:-8]

    with pytest.raises(ImageError, match=r"^a\.tar/0\.avif: "):
        pool.to_array_where_needed(content, SPEC, "a.tar/0.avif")


def test_a_heic_gives_the_upright_colours_of_its_picture(pool: IsolatedDecoders) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[:32, 48:], pixels[32:, :48] = (250, 10, 20), (10, 240, 30), (20, 30, 250)
    exif = PIL.Image.Exif()
    for orientation in range(1, 9):
        exif[ORIENTATION] = orientation
        expected = to_array(encode(PIL.Image.fromarray(pixels), "PNG", exif=exif), SPEC)
        content = heic(PIL.Image.fromarray(pixels), exif=exif.tobytes(), quality=95, chroma=444)
        decoded = pool.to_array(content, SPEC)
        assert np.abs(decoded.astype(int) - expected).mean() < 3, orientation


def test_grey_of_10_bits_becomes_8_bits_rounded(pool: IsolatedDecoders) -> None:
    levels = np.arange(1024, dtype=np.uint16).reshape(32, 32) << 6
    content = heic(PIL.Image.fromarray(levels), quality=-1)

    decoded = pool.to_array(content, grey(32, 32))[..., 0]

    np.testing.assert_array_equal(decoded, np.rint(np.arange(1024).reshape(32, 32) * 255 / 1023))


def test_transparent_pixels_of_a_heic_are_white(pool: IsolatedDecoders) -> None:
    picture = PIL.Image.new("RGBA", (64, 64), (0, 0, 0, 0))

    assert pool.to_array(heic(picture), SPEC).min() >= 250


@avif_or_heic
def test_a_file_of_the_brand_of_all_codecs_is_decoded_by_its_other_brand(
    pool: IsolatedDecoders, encoder: Encoder
) -> None:
    content = encoder(PIL.Image.fromarray(random_pixels(64, 64, 3)))
    assert content[8:12] in content[16:32]

    np.testing.assert_array_equal(
        pool.to_array(content[:8] + b"mif1" + content[12:], SPEC), pool.to_array(content, SPEC)
    )


def test_decoding_a_heic_leaves_the_other_plugins_of_pillow_alone() -> None:
    heic(PIL.Image.new("L", (8, 8)))
    script = """
import sys
import pdeinfer, pdeinfer.images.convert, pdeinfer.images.isolation
assert "pillow_heif" not in sys.modules
from pdeinfer.images.decoding_process import _prepare_heif
_prepare_heif()
import PIL.Image
PIL.Image.init()
assert "HEIF" not in PIL.Image.OPEN
"""
    subprocess.run([sys.executable, "-c", script], check=True)
