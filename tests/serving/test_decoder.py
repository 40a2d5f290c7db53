"""Large images: decoded one after the other where memory is short, without holding up anything else."""

import asyncio
import gc
from collections.abc import Callable
from io import BytesIO

import numpy as np
import PIL.Image
import pytest

from pdeinfer import PRESETS, ImageError, ImageTooLargeError, InputSpec
from pdeinfer.images.convert import to_array
from serving.engine import decoder as module
from serving.engine.decoder import SMALL_PIXELS, Decoder
from serving.engine.pixel_budget import PixelBudget
from serving.engine.threads import Threads
from serving.telemetry.metrics import ModelMetrics

SPEC = PRESETS["digits-pde"].input
LARGE = 1200  # pixels of a side
PIXELS = LARGE * LARGE


def upload(side: int, grey: int = 128) -> tuple[str, bytes]:
    file = BytesIO()
    PIL.Image.new("L", (side, side), grey).save(file, "PNG")
    return "image", file.getvalue()


class Watched:
    """A decoder whose threads note how many pixels they decode at a time."""

    def __init__(self, budget: PixelBudget, monkeypatch: pytest.MonkeyPatch, threads: int = 4) -> None:
        self.pixels = self.most = self.calls = 0
        self.threads = Threads(threads)
        self.decoder = Decoder(SPEC, 4 * PIXELS, self.threads, budget, ModelMetrics("test", "1"))

        def watched(content: bytes, spec: InputSpec, name: str, *, max_pixels: int) -> np.ndarray:
            if max_pixels == SMALL_PIXELS:
                return to_array(content, spec, name, max_pixels=max_pixels)
            self.calls += 1
            self.pixels += PIXELS
            self.most = max(self.most, self.pixels)
            try:
                return to_array(content, spec, name, max_pixels=max_pixels)
            finally:
                self.pixels -= PIXELS

        monkeypatch.setattr(module, "to_array", watched)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Watched]:
    return lambda total: Watched(PixelBudget(total), monkeypatch)


def test_an_image_that_is_refused_is_free_once_it_is_answered() -> None:
    threads = Threads(1)
    decoder = Decoder(SPEC, PIXELS, threads, PixelBudget(PIXELS), ModelMetrics("test", "1"))
    refused, large = ("image", b"no image"), upload(LARGE)

    async def objects_in_cycles(image: tuple[str, bytes]) -> int:
        await decoder.run([image])
        gc.collect()
        gc.disable()
        try:
            await decoder.run([image])
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    async def test() -> None:
        none = await objects_in_cycles(upload(8))
        assert await objects_in_cycles(refused) <= none
        assert await objects_in_cycles(large) <= none

    asyncio.run(test())
    threads.close()


def test_each_image_that_is_decoded_is_timed_once() -> None:
    threads, metrics = Threads(1), ModelMetrics("timed", "1")
    decoder = Decoder(SPEC, PIXELS, threads, PixelBudget(PIXELS), metrics)

    async def test() -> None:
        await decoder.run([upload(8), upload(LARGE), ("text", b"text"), upload(2 * LARGE)])

    asyncio.run(test())
    threads.close()
    (family,) = metrics.decode_seconds.collect()
    assert [sample.value for sample in family.samples if sample.name.endswith("_count")] == [3]  # not the too large one


def test_large_and_small_images_and_errors_come_back_in_order(watched: Callable[[int], Watched]) -> None:
    async def test() -> None:
        decoder = watched(4 * PIXELS).decoder
        uploads = [
            upload(8, 10),
            upload(LARGE, 20),
            upload(3 * LARGE),
            ("text", b"text"),
            upload(LARGE, 30),
        ]
        first, second, third, fourth, fifth = await decoder.run(uploads)

        assert [np.unique(image).tolist() for image in (first, second, fifth)] == [[10], [20], [30]]
        assert isinstance(third, ImageTooLargeError)
        assert str(third) == f"image: expected at most {4 * PIXELS} pixels, got {3 * LARGE} x {3 * LARGE}"
        assert isinstance(fourth, ImageError)

    asyncio.run(test())


def test_no_more_pixels_are_decoded_at_a_time_than_the_budget_has(watched: Callable[[int], Watched]) -> None:
    async def test() -> None:
        for total, fit in ((PIXELS, 1), (2 * PIXELS + 1, 2)):
            decoding = watched(total)
            await asyncio.gather(*(decoding.decoder.run([upload(LARGE)] * 3) for _ in range(4)))

            assert decoding.calls == 12
            assert decoding.most <= fit * PIXELS

    asyncio.run(test())


def test_small_images_do_not_wait_for_large_ones(watched: Callable[[int], Watched]) -> None:
    async def test() -> None:
        budget = PixelBudget(4 * PIXELS)
        await budget.acquire(4 * PIXELS)
        decoding = watched(0)
        decoding.decoder._budget = budget
        large = asyncio.create_task(decoding.decoder.run([upload(LARGE)]))
        await decoding.decoder.run([upload(1000)])
        assert not large.done()
        assert decoding.threads.free == decoding.threads.count
        budget.release(4 * PIXELS)
        await large

    asyncio.run(test())


def test_images_of_a_request_that_is_cancelled_are_not_decoded_and_give_their_room_back(
    watched: Callable[[int], Watched],
) -> None:
    async def test() -> None:
        budget = PixelBudget(PIXELS)
        await budget.acquire(PIXELS)
        decoding = watched(0)
        decoding.decoder._budget = budget
        leaving = asyncio.create_task(decoding.decoder.run([upload(LARGE)] * 3))
        staying = asyncio.create_task(decoding.decoder.run([upload(LARGE)]))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.wait([leaving])
        budget.release(PIXELS)
        await staying
        await budget.acquire(PIXELS)  # all of it is there

        assert leaving.cancelled()
        assert decoding.calls == 1

    asyncio.run(test())


def test_room_is_given_in_turn_so_that_the_largest_gets_it_too() -> None:
    async def test() -> None:
        budget = PixelBudget(10)
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


def test_what_waits_behind_one_that_leaves_gets_its_room() -> None:
    async def test() -> None:
        budget = PixelBudget(10)
        await budget.acquire(6)
        leaving = asyncio.create_task(budget.acquire(10))
        await asyncio.sleep(0)
        behind = asyncio.create_task(budget.acquire(4))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(behind, 1)

    asyncio.run(test())
