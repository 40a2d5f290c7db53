"""Isolated decoding: the arrays of `to_array`, and an end to every file that costs too much."""

import io
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image
import pytest

from pdeinfer import ImageError, ImageTooCostlyError, ImageTooLargeError
from pdeinfer.images import isolation
from pdeinfer.images.convert import to_array
from pdeinfer.images.cost import Estimate, estimate_webp, is_plain
from pdeinfer.images.isolation import (
    DecodingLimits,
    InProcessDecoder,
    IsolatedDecoder,
    IsolatedDecoders,
    receive,
    send,
)
from pdeinfer.images.limits import MAX_FILE_BYTES
from serving.settings import Settings
from tests.images.image_makers import avif, encode, gif_of_comments, grey, heic, padded_jpeg, random_pixels, rgb

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory, as Linux can")

SPEC = rgb(32, 32)
SMALL = encode(PIL.Image.fromarray(random_pixels(64, 64, 3)), "PNG")
LIMITS = DecodingLimits(bytes=64 * 2**20, seconds=1)

ORIENTATION = 0x0112
Encoder: TypeAlias = Callable[..., bytes]
avif_or_heic = pytest.mark.parametrize("encoder", [avif, heic])


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
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state not in "ZX" and b"pdeinfer.images.decoding_process" in command:
            parents[int(folder.name)] = int(parent)
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


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_after_an_interruption_the_next_image_has_its_own_answer(
    interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise interruption

    with IsolatedDecoders() as pool:
        with monkeypatch.context() as patched:
            patched.setattr(isolation, "receive", interrupted)
            with pytest.raises(interruption):
                pool.to_array(encode(PIL.Image.new("L", (64, 64)), "PNG"), SPEC)

        np.testing.assert_array_equal(pool.to_array(SMALL, SPEC), to_array(SMALL, SPEC))


def test_a_message_is_received_whole_although_a_signal_arrives_amidst_it() -> None:
    ours, theirs = socket.socketpair()
    content = bytes(range(256)) * 400
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def send_in_parts() -> None:
        for part in (content[:1000], content[1000:]):
            theirs.sendall(part)
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    with ours, theirs:
        theirs.sendall(isolation._HEAD.pack(2, len(content)) + b"{}")
        sender = threading.Thread(target=send_in_parts)
        sender.start()
        received = receive(ours)
        sender.join()
        send(theirs, {}, content)
        theirs.close()
        assert receive(ours) == received == ({}, content)
        with pytest.raises(EOFError):
            receive(ours)
    signal.signal(signal.SIGUSR1, before)


def test_images_are_decoded_under_a_limit_of_memory_that_cannot_be_raised() -> None:
    script = f"""
import resource
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.spec.networks import InputSpec
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
with IsolatedDecoders() as decoders:
    for _ in range(2):
        decoders.to_array({SMALL!r}, InputSpec(8, 8, 3, (0.0,) * 3, (1.0,) * 3))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


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
