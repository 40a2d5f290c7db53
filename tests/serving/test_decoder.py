"""Decoding for concurrent requests: cheap images at once, costly ones in processes, when there is memory for them."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import PIL.Image
import pytest
from prometheus_client import Histogram

from pdeinfer import PRESETS, ImageError, ImageTooCostlyError, ImageTooLargeError, InputSpec
from pdeinfer.images.convert import OpenedImage
from pdeinfer.images.isolation import IsolatedDecoder
from pdeinfer.images.limits import DecodingLimits
from serving.engine.decoder import Decoder, NamedFile
from serving.engine.isolation import Isolation
from serving.engine.memory_budget import MemoryBudget
from serving.engine.threads import Threads
from serving.errors import InferenceError
from serving.settings import Settings
from serving.telemetry.metrics import ModelMetrics
from tests.images.image_makers import gif_of_comments, padded_jpeg
from tests.waiting import PATIENCE, eventually

SPEC = PRESETS["digits-pde"].input
MAX_PIXELS = 64_000_000
MIB = 2**20
VERSIONS = itertools.count()  # no two tests count in the same metrics


def image_file(side: int, grey: int = 128, file_format: str = "PNG") -> NamedFile:
    file = BytesIO()
    PIL.Image.new("L", (side, side), grey).save(file, file_format)
    return "image", file.getvalue()


CHEAP = image_file(400)
MEDIUM = image_file(1100)  # decodes in 6 MB: at the first try
LARGE = image_file(2400)  # in 29 MB: at the second
WEBP = image_file(32, file_format="WEBP")
PPM = "image", b"P2\n1 1\n255\n" + b"#\n" * 30_000 + b"0"  # Pillow reads comments one byte at a time


class Decoding:
    """A decoder with its processes, which notes what they are given at a time.

    Attributes:
        calls: the limits of memory of all images.
        most: the most bytes that they were given at a time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int, max_pixels: int = MAX_PIXELS) -> None:
        self.calls: list[int] = []
        self.most = 0
        self.threads = Threads(2)
        self.metrics = ModelMetrics("decoder", str(next(VERSIONS)))
        self.isolation = Isolation(
            Settings(threads=4, max_body_bytes=MIB, max_decoding_bytes=total, max_image_pixels=max_pixels)
        )
        self.decoder = Decoder(SPEC, max_pixels, self.threads, self.isolation, self.metrics)
        lock, decode = threading.Lock(), IsolatedDecoder.decode
        given = 0

        def watched(
            decoder: IsolatedDecoder, content: bytes, spec: InputSpec, name: str, limits: DecodingLimits
        ) -> object:
            nonlocal given
            size = limits.address_space(len(content))
            with lock:
                given += size
                self.calls.append(limits.bytes)
                self.most = max(self.most, given)
            try:
                return decode(decoder, content, spec, name, limits)
            finally:
                with lock:
                    given -= size

        monkeypatch.setattr(IsolatedDecoder, "decode", watched)

    def close(self) -> None:
        self.isolation.close()
        self.threads.close()


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Decoding]]:
    made: list[Decoding] = []

    def make(total: int = 100 * MIB, **options: int) -> Decoding:
        made.append(Decoding(monkeypatch, total, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_only_images_that_may_be_costly_are_given_to_other_processes(decoding: Callable[..., Decoding]) -> None:
    made = decoding()

    for image, tries in ((CHEAP, 0), (MEDIUM, 1), (LARGE, 2), (WEBP, 1), (PPM, 1), (random_png(600), 1)):
        made.calls.clear()
        (result,) = asyncio.run(made.decoder.run([image]))
        assert isinstance(result, np.ndarray)
        assert len(made.calls) == tries


def random_png(side: int) -> NamedFile:
    file = BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)).save(file, "PNG")
    return "noise", file.getvalue()


@pytest.mark.parametrize(
    ("file", "needs_thread"),
    [
        (image_file(128), False),
        (("text", b"text"), False),
        (image_file(129), True),  # of too many pixels
        (random_png(65), True),  # of too many bytes
    ],
)
def test_a_tiny_image_is_decoded_without_a_thread(
    decoding: Callable[..., Decoding], file: NamedFile, needs_thread: bool
) -> None:
    made = decoding()

    async def needs() -> bool:
        for _ in range(made.threads.count):  # none is free
            await made.threads.acquire()
        running = asyncio.create_task(made.decoder.run([file]))
        await asyncio.wait([running], timeout=0.05)
        waits = not running.done()
        for _ in range(made.threads.count):
            made.threads.release()
        (result,) = await running
        assert isinstance(result, ImageError if file[0] == "text" else np.ndarray)
        return waits

    assert asyncio.run(needs()) == needs_thread


def test_images_and_errors_come_back_in_order(decoding: Callable[..., Decoding]) -> None:
    files = [
        image_file(8, 10),
        image_file(3000, 20),
        image_file(7000),
        ("text", b"text"),
        ("base64", ImageError("base64: no base64")),
        image_file(1100, 30),
    ]
    first, second, *errors, last = asyncio.run(decoding().decoder.run(files))

    assert [np.unique(image).tolist() for image in (first, second, last)] == [[10], [20], [30]]
    assert [type(error) for error in errors] == [ImageTooLargeError, ImageError, ImageError]


def test_an_image_that_costs_too_much_fails_alone(decoding: Callable[..., Decoding]) -> None:
    bomb = ("bomb", gif_of_comments(3_000_000))

    results = asyncio.run(decoding().decoder.run([MEDIUM, bomb, CHEAP, MEDIUM]))

    assert [type(result) for result in results] == [np.ndarray, ImageTooCostlyError, np.ndarray, np.ndarray]


def test_a_refused_image_is_freed_when_it_is_answered(decoding: Callable[..., Decoding]) -> None:
    decoder = decoding().decoder

    async def objects_in_cycles(file: NamedFile) -> int:
        await decoder.run([file])
        gc.collect()
        gc.disable()
        try:
            await decoder.run([file])
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    async def test() -> None:
        none = await objects_in_cycles(CHEAP)
        for file in (("image", b"no image"), image_file(7000), LARGE, ("webp", b"RIFF____WEBPVP8 ")):
            assert await objects_in_cycles(file) <= none

    asyncio.run(test())


def value(histogram: Histogram, part: str) -> float:
    (family,) = histogram.collect()
    (found,) = (sample.value for sample in family.samples if sample.name.endswith(f"_{part}"))
    return found


@pytest.mark.parametrize(
    "files",
    [
        [CHEAP, MEDIUM, LARGE, WEBP, ("text", b"text")],
        [image_file(8), image_file(16), image_file(200), ("text", b"text")],  # all in the bytes of tiny ones
        [image_file(7000)],
    ],
    ids=["of all kinds", "tiny and cheap", "too large"],
)
def test_decoding_is_timed_once_per_image(decoding: Callable[..., Decoding], files: list[NamedFile]) -> None:
    made = decoding()
    asyncio.run(made.decoder.run(files))

    assert value(made.metrics.decode_seconds, "count") == len(files)
    assert value(made.metrics.decode_queue_seconds, "count") == 1


def test_tiny_images_are_decoded_once_beside_a_larger_one(
    decoding: Callable[..., Decoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, decode = [], OpenedImage.to_array

    def recording(opened: OpenedImage) -> np.ndarray:
        decoded.append(opened.whole_size[0])
        return decode(opened)

    monkeypatch.setattr(OpenedImage, "to_array", recording)
    files = [image_file(8, 10), image_file(200, 20), image_file(16, 30)]
    results = asyncio.run(decoding().decoder.run(files))

    assert sorted(decoded) == [8, 16, 200]
    assert [np.unique(image).tolist() for image in results] == [[10], [20], [30]]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_the_wait_for_a_process_is_timed_apart_from_decoding(
    decoding: Callable[..., Decoding], is_cancelled: bool
) -> None:
    made = decoding(40 * MIB)
    budget = made.isolation._budget

    async def test() -> None:
        await budget.acquire(40 * MIB)
        waiting = asyncio.create_task(made.decoder.run([LARGE]))
        await asyncio.sleep(1)
        if is_cancelled:
            waiting.cancel()
        budget.release(40 * MIB)
        await asyncio.wait([waiting])

    asyncio.run(test())
    assert value(made.metrics.process_queue_seconds, "count") == 1
    assert value(made.metrics.process_queue_seconds, "sum") > 0.8
    assert value(made.metrics.decode_seconds, "count") == (0 if is_cancelled else 1)


def test_an_image_whose_client_left_before_its_second_try_is_not_timed(decoding: Callable[..., Decoding]) -> None:
    made = decoding(40 * MIB)
    budget = made.isolation._budget

    async def test() -> None:
        await budget.acquire(40 * MIB)
        leaving = asyncio.create_task(made.decoder.run([LARGE]))
        await eventually(lambda: budget._waiting)
        between_its_tries = asyncio.create_task(budget.acquire(40 * MIB))
        await eventually(lambda: len(budget._waiting) == 2)
        budget.release(40 * MIB)
        await between_its_tries
        await eventually(lambda: budget._waiting)
        leaving.cancel()
        await asyncio.wait([leaving])

    asyncio.run(test())
    assert len(made.calls) == 1
    assert value(made.metrics.process_queue_seconds, "count") == 1
    assert value(made.metrics.decode_seconds, "count") == 0


def test_an_image_beyond_the_limit_on_pixels_is_refused(decoding: Callable[..., Decoding]) -> None:
    decoder = decoding(max_pixels=1_000_000).decoder

    files = [CHEAP, image_file(1001), image_file(4000, 9, "JPEG")]
    within, beyond, reduced = asyncio.run(decoder.run(files))

    assert isinstance(beyond, ImageTooLargeError)
    assert isinstance(within, np.ndarray)
    assert isinstance(reduced, np.ndarray)  # a JPEG of 16 megapixels, decoded at an eighth of its width


@pytest.mark.parametrize("patched", [OpenedImage.to_array, IsolatedDecoder.decode], ids=["here", "in a process"])
def test_a_failure_that_is_not_the_images_is_logged_and_fails_that_image_alone(
    patched: Callable[..., np.ndarray],
    decoding: Callable[..., Decoding],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    decoder = decoding().decoder
    image = CHEAP if patched is OpenedImage.to_array else MEDIUM

    def failing(opened: OpenedImage | IsolatedDecoder, *args: object) -> np.ndarray:
        if "unlucky" in (getattr(opened, "name", ""), *args):
            raise RuntimeError("no memory")
        return patched(opened, *args)

    monkeypatch.setattr(OpenedImage if image is CHEAP else IsolatedDecoder, patched.__name__, failing)
    failed, decoded = asyncio.run(decoder.run([("unlucky", image[1]), image]))

    assert isinstance(failed, InferenceError)
    assert isinstance(decoded, np.ndarray)
    assert "no memory" in caplog.text


def test_processes_get_no_more_memory_at_a_time_than_the_budget_has(decoding: Callable[..., Decoding]) -> None:
    async def test(made: Decoding) -> None:
        await asyncio.gather(*(made.decoder.run([MEDIUM] * 3) for _ in range(4)))

    for images_at_a_time in (1, 2):
        made = decoding(20 * MIB * images_at_a_time)
        asyncio.run(test(made))

        assert len(made.calls) == 12
        assert made.most <= 20 * MIB * images_at_a_time


def test_cheap_images_do_not_wait_for_costly_ones(decoding: Callable[..., Decoding]) -> None:
    async def test() -> None:
        made = decoding(20 * MIB)
        budget = made.isolation._budget
        await budget.acquire(20 * MIB)
        costly = asyncio.create_task(made.decoder.run([MEDIUM] * 8))
        await made.decoder.run([CHEAP])
        assert not costly.done()
        budget.release(20 * MIB)
        await costly

    asyncio.run(test())


def test_a_costly_image_does_not_wait_for_all_of_another_model(decoding: Callable[..., Decoding]) -> None:
    async def test() -> None:
        made = decoding(20 * MIB)  # for one image at a time
        other = Decoder(SPEC, MAX_PIXELS, made.threads, made.isolation, made.metrics)
        busy = asyncio.create_task(made.decoder.run([MEDIUM] * 24))
        while len(made.calls) < 2:
            await asyncio.sleep(0.001)
        await other.run([MEDIUM])
        assert len(made.calls) < 12
        await busy

    asyncio.run(test())


def test_waiting_images_of_a_cancelled_request_are_not_decoded(decoding: Callable[..., Decoding]) -> None:
    async def test() -> None:
        made = decoding(20 * MIB)
        budget = made.isolation._budget
        await budget.acquire(20 * MIB)
        leaving = asyncio.create_task(made.decoder.run([MEDIUM] * 3))
        staying = asyncio.create_task(made.decoder.run([MEDIUM]))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.wait([leaving])
        budget.release(20 * MIB)
        await staying
        await asyncio.wait_for(budget.acquire(20 * MIB), 1)  # all of it has been given back

        assert leaving.cancelled()
        assert len(made.calls) == 1

    asyncio.run(test())


def test_images_that_are_cancelled_while_they_wait_for_memory_leave_their_threads(
    decoding: Callable[..., Decoding],
) -> None:
    async def test() -> None:
        made = decoding(40 * MIB)
        budget, threads = made.isolation._budget, made.isolation._threads
        await budget.acquire(40 * MIB)
        leaving = [asyncio.create_task(made.decoder.run([MEDIUM])) for _ in range(threads.count)]
        await eventually(lambda: len(budget._waiting) == threads.count)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        assert threads.free == threads.count

    asyncio.run(test())


def test_a_cancelled_request_stops_the_process_that_decodes_for_it(decoding: Callable[..., Decoding]) -> None:
    async def test() -> None:
        made = decoding(40 * MIB)
        await made.decoder.run([MEDIUM])
        leaving = asyncio.create_task(made.decoder.run([("endless", padded_jpeg(8_000_000))]))
        await asyncio.sleep(0.5)
        assert len(made.calls) == 2
        leaving.cancel()
        await asyncio.wait([leaving])
        # Without that, it would hold this memory for the five seconds that one image may take.
        await asyncio.wait_for(made.isolation._budget.acquire(40 * MIB), 2)

    asyncio.run(test())


def test_memory_is_given_in_turn_to_the_largest_image_too() -> None:
    async def test() -> None:
        budget = MemoryBudget(10)
        await budget.acquire(6)
        largest = asyncio.create_task(budget.acquire(10))
        await asyncio.sleep(0)
        behind = asyncio.create_task(budget.acquire(1))
        await asyncio.sleep(0)
        assert not behind.done()
        budget.release(6)
        await largest
        assert not behind.done()
        budget.release(10)
        await behind

    asyncio.run(test())


def test_an_image_that_waits_behind_a_cancelled_one_gets_its_turn() -> None:
    async def test() -> None:
        budget = MemoryBudget(10)
        await budget.acquire(6)
        leaving = asyncio.create_task(budget.acquire(10))
        await asyncio.sleep(0)
        behind = asyncio.create_task(budget.acquire(4))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(behind, 1)

    asyncio.run(test())


def test_memory_that_was_granted_to_an_image_that_was_just_cancelled_is_given_back() -> None:
    async def test() -> None:
        budget = MemoryBudget(10)
        await budget.acquire(10)
        leaving = asyncio.create_task(budget.acquire(8))
        await asyncio.sleep(0)
        budget.release(10)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        await asyncio.wait_for(budget.acquire(10), PATIENCE)

    asyncio.run(test())
