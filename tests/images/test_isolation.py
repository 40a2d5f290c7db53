"""Isolated decoding: the arrays of `to_array`, and an end to every file that costs too much."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer import ImageError, ImageTooCostlyError, ImageTooLargeError
from pdeinfer.images.convert import to_array
from pdeinfer.images.cost import Estimate
from pdeinfer.images.isolation import InProcessDecoder, IsolatedDecoder, IsolatedDecoders
from pdeinfer.images.limits import MAX_FILE_BYTES, DecodingLimits
from tests.images.conftest import LIMITS, NEEDS_STATM, SMALL, SPEC
from tests.images.image_makers import encode, gif_of_comments, padded_jpeg, random_pixels

pytestmark = NEEDS_STATM


@pytest.mark.parametrize("file_format", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_format_decodes_as_in_this_process(pool: IsolatedDecoders, file_format: str) -> None:
    content = encode(PIL.Image.fromarray(random_pixels(300, 200, 3)), file_format)

    np.testing.assert_array_equal(pool.to_array(content, SPEC), to_array(content, SPEC))


def test_a_file_is_read_from_its_path(pool: IsolatedDecoders, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(SMALL)

    np.testing.assert_array_equal(pool.to_array(path, SPEC), to_array(path, SPEC))
    with pytest.raises(ImageError, match="missing"):
        pool.to_array(tmp_path / "missing.png", SPEC)


@pytest.mark.parametrize(
    "content",
    [gif_of_comments(12_000_000), padded_jpeg(6_000_000), encode(PIL.Image.new("RGB", (3600, 3600)), "WEBP")],
    ids=["memory of Python", "time", "memory of a library"],
)
def test_a_file_that_costs_too_much_is_refused_and_the_next_one_is_decoded(
    decoder: IsolatedDecoder, content: bytes
) -> None:
    started = time.monotonic()
    with pytest.raises(ImageTooCostlyError, match="costly"):
        decoder.decode(content, SPEC, "costly", LIMITS)
    seconds = time.monotonic() - started

    assert isinstance(decoder.decode(SMALL, SPEC, "next", LIMITS), np.ndarray)
    assert seconds < 20  # of a clock, for one second of a CPU that others use too


def test_a_damaged_file_is_no_costly_one(decoder: IsolatedDecoder) -> None:
    for content in (b"text", SMALL[:-100], encode(PIL.Image.new("RGB", (64, 64)), "WEBP")[:-40]):
        with pytest.raises(ImageError) as raised:
            decoder.decode(content, SPEC, "damaged", LIMITS)
        assert type(raised.value) is ImageError


def test_an_image_of_too_many_pixels_is_refused_with_their_number(decoder: IsolatedDecoder) -> None:
    with pytest.raises(ImageTooLargeError) as raised:
        decoder.decode(SMALL, SPEC, "large", DecodingLimits(pixels=4000))

    assert raised.value.pixels == 64 * 64


def test_an_image_above_the_limit_of_memory_gives_its_estimate(
    pool: IsolatedDecoders, decoder: IsolatedDecoder
) -> None:
    content = encode(PIL.Image.new("RGBA", (4000, 3000)), "PNG")
    estimate = decoder.decode(content, SPEC, "large", LIMITS)
    in_process = InProcessDecoder().decode(content, SPEC, "large", LIMITS)

    assert isinstance(estimate, Estimate)
    assert (estimate.width, estimate.height) == (4000, 3000)
    assert estimate == in_process
    with pytest.raises(ImageTooLargeError):
        pool.to_array(content, SPEC, limits=LIMITS)


def test_a_file_above_the_limit_of_bytes_is_refused_before_it_is_read(pool: IsolatedDecoders, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    path.write_bytes(encode(PIL.Image.new("L", (8, 8)), "TIFF"))
    os.truncate(path, MAX_FILE_BYTES + 1)

    with pytest.raises(ImageTooLargeError, match=f"{MAX_FILE_BYTES + 1}$"):
        pool.to_array(path, SPEC)


def test_other_files_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(SMALL)
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_bytes, args=[SMALL])
    with IsolatedDecoders() as decoders:
        monkeypatch.setattr(decoders, "take", None)
        writer.start()
        for source in (path, SMALL, pipe):
            np.testing.assert_array_equal(decoders.to_array_where_needed(source, SPEC), to_array(SMALL, SPEC))
        with pytest.raises(ImageError, match=r"missing.png: expected"):
            decoders.to_array_where_needed(tmp_path / "missing.png", SPEC)
    writer.join()


def test_files_that_only_seem_costly_are_decoded(decoder: IsolatedDecoder) -> None:
    text = b"P3 400 300 255\n" + b"10 20 30\n" * 120_000
    jpeg = encode(PIL.Image.new("RGB", (64, 64), (10, 20, 30)), "JPEG")
    many_segments = jpeg[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg[2:]

    for content in (text, many_segments):
        with pytest.raises(ImageError):
            to_array(content, SPEC)  # where nothing could stop it
        decoded = decoder.decode(content, SPEC, "image", LIMITS)
        assert isinstance(decoded, np.ndarray)
        np.testing.assert_allclose(decoded.mean((0, 1)), (10, 20, 30), atol=2)
