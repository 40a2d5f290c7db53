"""Isolated decoding: the arrays of `to_array`, and an end to every file that costs too much."""

import io
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer import ImageError, ImageTooCostlyError, ImageTooLargeError
from pdeinfer.images.convert import to_array
from pdeinfer.images.cost import Estimate, estimate_webp, is_plain
from pdeinfer.images.formats import HAS_AVIF
from pdeinfer.images.isolation import DecodingLimits, InProcessDecoder, IsolatedDecoder, IsolatedDecoders
from tests.images.image_makers import encode, gif_of_comments, padded_jpeg, random_pixels, rgb

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory, as Linux can")

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


def processes() -> set[int]:
    """Return the ids of all decoding processes and their hosts that descend from this process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            parents[int(text.split()[0])] = int(parent)
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return found


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


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


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}], ids=["lossy", "lossless", "extended"]
)
def test_the_size_of_a_webp_is_read_from_its_first_bytes(options: dict[str, object]) -> None:
    estimate = estimate_webp(encode(PIL.Image.new("RGB", (300, 20)), "WEBP", **options)[:30])

    assert estimate is not None
    assert estimate[1:] == (300, 20)
    assert estimate_webp(SMALL) is None


def avif(picture: PIL.Image.Image) -> bytes:
    """Return an AVIF; skip the test if Pillow cannot write it."""
    if not HAS_AVIF:
        pytest.skip("this Pillow has no AVIF")
    return encode(picture, "AVIF", speed=10)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("side", [16, 64, 1600])
def test_an_avif_is_decoded_within_its_estimate(decoder: IsolatedDecoder, mode: str, side: int) -> None:
    content = avif(PIL.Image.fromarray(random_pixels(16, 16, 3)).convert(mode).resize((side, side)))
    with PIL.Image.open(io.BytesIO(content)) as picture:
        expected = to_array(picture, SPEC)

    estimate = decoder.decode(content, SPEC, "x", DecodingLimits(bytes=0))
    assert isinstance(estimate, Estimate)
    decoded = decoder.decode(content, SPEC, "x", DecodingLimits(bytes=estimate.bytes))

    assert isinstance(decoded, np.ndarray)
    np.testing.assert_array_equal(decoded, expected)


def test_an_avif_with_more_pixels_than_its_header_says_is_too_costly(pool: IsolatedDecoders) -> None:
    content = bytearray(avif(PIL.Image.new("RGB", (6000, 6000))))
    sides = content.index(b"ispe") + 8
    content[sides : sides + 8] = 2 * (16).to_bytes(4, "big")

    with pytest.raises(ImageTooCostlyError):
        pool.to_array(bytes(content), SPEC, "x", replace(LIMITS, bytes=8 * 2**20))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_avif_is_refused(pool: IsolatedDecoders, part: float) -> None:
    content = avif(PIL.Image.fromarray(random_pixels(64, 64, 3)))

    with pytest.raises(ImageError, match="damaged or unsupported AVIF"):
        pool.to_array(content[: int(part * len(content))], SPEC)


def test_a_damaged_avif_is_refused(pool: IsolatedDecoders) -> None:
    content = bytearray(avif(PIL.Image.fromarray(random_pixels(64, 64, 3))))
    pixels = content.index(b"mdat") + 4
    content[pixels:] = bytes(len(content) - pixels)

    with pytest.raises(ImageError, match="damaged or unsupported AVIF"):
        pool.to_array(bytes(content), SPEC)


def test_an_avif_with_more_pixels_than_the_limit_is_refused(pool: IsolatedDecoders) -> None:
    with pytest.raises(ImageTooLargeError):
        pool.to_array(avif(PIL.Image.new("L", (64, 64))), SPEC, limits=replace(LIMITS, pixels=4095))


def test_an_avif_is_not_decoded_in_this_process() -> None:
    content = avif(PIL.Image.new("L", (64, 64)))

    assert not is_plain(content)
    with pytest.raises(ImageError, match="--isolate"):
        to_array(content, SPEC)


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


def test_decoding_can_be_stopped_from_another_thread(decoder: IsolatedDecoder) -> None:
    decoder.start()
    threading.Timer(0.5, decoder.stop).start()
    started = time.monotonic()
    with pytest.raises(ImageTooCostlyError):
        decoder.decode(padded_jpeg(30_000_000), SPEC, "endless", DecodingLimits(seconds=600))

    assert time.monotonic() - started < 10
    assert isinstance(decoder.decode(SMALL, SPEC, "next", LIMITS), np.ndarray)


def test_a_process_that_stays_large_is_replaced(decoder: IsolatedDecoder) -> None:
    decoder.decode(SMALL, SPEC, "small", LIMITS)
    before = processes()
    with pytest.raises(ImageTooCostlyError):
        decoder.decode(gif_of_comments(12_000_000), SPEC, "costly", DecodingLimits(bytes=64 * 2**20, seconds=60))
    for _ in range(3):
        decoder.decode(encode(PIL.Image.new("RGB", (3000, 3000)), "PNG"), SPEC, "large", LIMITS)
    resident = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in processes()
    ]

    assert len(resident) == len(before)
    assert max(resident) < 100 * 2**20


def test_killed_processes_are_replaced(decoder: IsolatedDecoder) -> None:
    for _ in range(2):
        for pid in processes():  # the decoding process and its host
            os.kill(pid, signal.SIGKILL)
        assert within(5, lambda: not processes())
        assert isinstance(decoder.decode(SMALL, SPEC, "next", LIMITS), np.ndarray)


def test_closing_ends_all_processes_also_while_they_decode() -> None:
    before = processes()
    failed = threading.Event()

    def decode() -> None:
        with pytest.raises(ImageTooCostlyError):
            pool.to_array(padded_jpeg(30_000_000), SPEC, limits=DecodingLimits(seconds=600))
        failed.set()

    with IsolatedDecoders() as pool:
        pool.start(2)
        thread = threading.Thread(target=decode)
        thread.start()
        assert within(10, lambda: len(processes() - before) == 3)
        started = processes() - before
        time.sleep(0.5)
    thread.join(10)

    assert failed.is_set()
    assert within(5, lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_an_image_is_not_to_blame_for_a_process_that_cannot_be_started() -> None:
    before = processes()
    with IsolatedDecoders() as pool:
        pool.to_array(SMALL, SPEC)
        decoder = pool.take()
        decoder.close()
        assert within(5, lambda: len(processes() - before) == 1)
        (host,) = processes() - before
        resource.prlimit(host, resource.RLIMIT_NOFILE, (0, 0))  # it gets no socket for a new process
        with pytest.raises(RuntimeError):
            decoder.decode(SMALL, SPEC, "image", LIMITS)
        assert within(5, lambda: host not in processes())
        assert isinstance(decoder.decode(SMALL, SPEC, "image", LIMITS), np.ndarray)
        pool.give(decoder)
