"""Large images: decoded when there is memory for them, without delaying anything else."""

import asyncio
import gc
from collections.abc import Callable
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from pdeinfer import PRESETS, ImageError, ImageTooLargeError
from pdeinfer.images.convert import OpenedImage, open_image
from serving.engine.decoder import Decoder, NamedFile
from serving.engine.memory_budget import MemoryBudget
from serving.engine.threads import Threads
from serving.errors import InferenceError
from serving.settings import SMALL_BYTES
from serving.telemetry.metrics import ModelMetrics

SPEC = PRESETS["digits-pde"].input
MAX_PIXELS = 64_000_000


def image_file(side: int, grey: int = 128, file_format: str = "PNG") -> NamedFile:
    file = BytesIO()
    PIL.Image.new("L", (side, side), grey).save(file, file_format)
    return "image", file.getvalue()


def cost(file: NamedFile) -> int:
    assert isinstance(file[1], bytes)
    with open_image(file[1], SPEC) as opened:
        return opened.decoding_bytes()


SMALL, LARGE = image_file(1000), image_file(1600)
SIZE = cost(LARGE)
assert cost(SMALL) < SMALL_BYTES < SIZE


class Watched:
    """A decoder whose threads note how many bytes they decode in at a time."""

    def __init__(self, budget: MemoryBudget, monkeypatch: pytest.MonkeyPatch, threads: int = 4) -> None:
        self.bytes = self.most = self.calls = 0
        self.threads = Threads(threads)
        self.decoder = Decoder(SPEC, MAX_PIXELS, self.threads, budget, ModelMetrics("test", "1"))
        to_array = OpenedImage.to_array

        def watched(opened: OpenedImage) -> np.ndarray:
            size = opened.decoding_bytes()
            if size <= SMALL_BYTES:
                return to_array(opened)
            self.calls += 1
            self.bytes += size
            self.most = max(self.most, self.bytes)
            try:
                return to_array(opened)
            finally:
                self.bytes -= size

        monkeypatch.setattr(OpenedImage, "to_array", watched)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[MemoryBudget], Watched]:
    return lambda budget: Watched(budget, monkeypatch)


def test_a_refused_image_is_freed_when_it_is_answered() -> None:
    threads = Threads(1)
    decoder = Decoder(SPEC, MAX_PIXELS, threads, MemoryBudget(SIZE), ModelMetrics("test", "1"))

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
        none = await objects_in_cycles(SMALL)
        for file in (("image", b"no image"), image_file(2400), LARGE):
            assert await objects_in_cycles(file) <= none

    asyncio.run(test())
    threads.close()


def test_each_image_is_timed_once() -> None:
    threads, metrics = Threads(1), ModelMetrics("timed", "1")
    decoder = Decoder(SPEC, MAX_PIXELS, threads, MemoryBudget(SIZE), metrics)

    async def test() -> None:
        await decoder.run([SMALL, LARGE, ("text", b"text"), image_file(2400)])

    asyncio.run(test())
    threads.close()
    (family,) = metrics.decode_seconds.collect()
    assert [sample.value for sample in family.samples if sample.name.endswith("_count")] == [4]


def test_large_and_small_images_and_errors_come_back_in_order(watched: Callable[[MemoryBudget], Watched]) -> None:
    async def test() -> None:
        decoder = watched(MemoryBudget(2 * SIZE)).decoder
        files = [
            image_file(8, 10),
            image_file(1600, 20),
            image_file(3200),
            ("text", b"text"),
            ("base64", ImageError("base64: no base64")),
            image_file(1600, 30),
        ]
        first, second, *errors, last = await decoder.run(files)

        assert [np.unique(image).tolist() for image in (first, second, last)] == [[10], [20], [30]]
        assert [type(error) for error in errors] == [ImageTooLargeError, ImageError, ImageError]

    asyncio.run(test())


def test_an_image_beyond_the_limit_on_pixels_is_refused() -> None:
    threads = Threads(1)
    decoder = Decoder(SPEC, 1_000_000, threads, MemoryBudget(SIZE), ModelMetrics("test", "1"))

    within, beyond, reduced = asyncio.run(decoder.run([SMALL, image_file(1001), image_file(4000, 9, "JPEG")]))
    threads.close()

    assert isinstance(beyond, ImageTooLargeError)
    assert isinstance(within, np.ndarray)
    assert isinstance(reduced, np.ndarray)  # a JPEG of 16 megapixels, decoded at an eighth of its width


def test_a_failure_that_is_not_the_images_is_logged_and_fails_that_image_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Threads(1)
    decoder = Decoder(SPEC, MAX_PIXELS, threads, MemoryBudget(SIZE), ModelMetrics("test", "1"))
    to_array = OpenedImage.to_array

    def failing(opened: OpenedImage) -> np.ndarray:
        if opened.name == "unlucky":
            raise MemoryError
        return to_array(opened)

    monkeypatch.setattr(OpenedImage, "to_array", failing)
    failed, decoded = asyncio.run(decoder.run([("unlucky", SMALL[1]), SMALL]))
    threads.close()

    assert isinstance(failed, InferenceError)
    assert isinstance(decoded, np.ndarray)
    assert "MemoryError" in caplog.text


def test_no_more_memory_is_decoded_in_at_a_time_than_the_budget_has(
    watched: Callable[[MemoryBudget], Watched],
) -> None:
    async def test() -> None:
        for total in (SIZE, 2 * SIZE + 1):
            decoding = watched(MemoryBudget(total))
            await asyncio.gather(*(decoding.decoder.run([LARGE] * 3) for _ in range(4)))

            assert decoding.calls == 12
            assert decoding.most <= total

    asyncio.run(test())


def test_small_images_do_not_wait_for_large_ones(watched: Callable[[MemoryBudget], Watched]) -> None:
    async def test() -> None:
        budget = MemoryBudget(SIZE)
        await budget.acquire(SIZE)
        decoding = watched(budget)
        large = asyncio.create_task(decoding.decoder.run([LARGE]))
        await decoding.decoder.run([SMALL])
        async with asyncio.timeout(10):
            while decoding.threads.free < decoding.threads.count:  # the large image's header is still read
                await asyncio.sleep(0.01)
        assert not large.done()
        budget.release(SIZE)
        await large

    asyncio.run(test())


def test_waiting_images_of_a_cancelled_request_are_not_decoded(watched: Callable[[MemoryBudget], Watched]) -> None:
    async def test() -> None:
        budget = MemoryBudget(SIZE)
        await budget.acquire(SIZE)
        decoding = watched(budget)
        leaving = asyncio.create_task(decoding.decoder.run([LARGE] * 3))
        staying = asyncio.create_task(decoding.decoder.run([LARGE]))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.wait([leaving])
        budget.release(SIZE)
        await staying
        await asyncio.sleep(0)
        await asyncio.wait_for(budget.acquire(SIZE), 1)  # all of it has been given back

        assert leaving.cancelled()
        assert decoding.calls == 1

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
