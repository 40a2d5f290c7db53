"""Batches: what is computed together, in what order, and what is not computed at all."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from serving.batching import Batcher
from serving.errors import QueueFullError
from serving.metrics import ModelMetrics
from serving.threads import Threads


class Network:
    """Answers an image (1, 1, 1) of value v with the probabilities (v, 0), and notes the batches it was given.

    It fails on a batch with an image of the value 255, and waits while it is not `open`.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        values = images[:, 0, 0, 0].tolist()
        self.batches.append(values)
        assert self.open.wait(10)
        if 255 in values:
            raise RuntimeError("cannot compute 255")
        return np.array([[value, 0] for value in values], np.float32)


@pytest.fixture
def network() -> Network:
    return Network()


def images(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def batched(
    network: Network,
    test: Callable[[Batcher], Coroutine[Any, Any, None]],
    *,
    threads: int = 1,
    max_batch_size: int = 4,
    max_delay: float = 0.0,
) -> None:
    """Run a test with a batcher over the network, in an event loop of its own."""

    async def run() -> None:
        pool = Threads(threads)
        batcher = Batcher(
            network,
            pool,
            ModelMetrics("test", "1"),
            max_batch_size=max_batch_size,
            max_delay=max_delay,
            max_queue=10,
            max_batches=threads,
        )
        try:
            await test(batcher)
        finally:
            network.open.set()
            await asyncio.to_thread(pool.close)
        assert batcher.waiting == batcher.admitted == 0

    asyncio.run(asyncio.wait_for(run(), 60))


async def values(batcher: Batcher, *inputs: int) -> list[int]:
    """Return what the network answers to a request of these images."""
    outcomes = await batcher.run(images(*inputs))
    return [-1 if isinstance(outcome, Exception) else int(outcome[0]) for outcome in outcomes]


async def busy(network: Network) -> None:
    """Wait until the network computes."""
    while not network.batches:
        await asyncio.sleep(0.001)


def test_what_waits_while_the_threads_are_busy_is_one_batch_in_the_order_it_came(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        network.open.clear()
        first = asyncio.create_task(values(batcher, 1))
        await busy(network)
        others = [asyncio.create_task(values(batcher, value)) for value in (2, 3, 4)]
        await asyncio.sleep(0.01)
        network.open.set()

        assert await first == [1]
        assert await asyncio.gather(*others) == [[2], [3], [4]]
        assert network.batches == [[1], [2, 3, 4]]

    batched(network, test)


def test_batches_are_filled_by_images_and_a_large_request_is_split(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        network.open.clear()
        first = asyncio.create_task(values(batcher, 1))
        await busy(network)
        small, large = asyncio.create_task(values(batcher, 2, 3)), asyncio.create_task(values(batcher, 4, 5, 6, 7, 8))
        await asyncio.sleep(0.01)
        network.open.set()

        assert await large == [4, 5, 6, 7, 8]
        assert (await first, await small) == ([1], [2, 3])
        assert network.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]

    batched(network, test)


def test_a_large_request_on_an_idle_server_is_spread_over_its_threads(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        assert await values(batcher, 1, 2, 3, 4) == [1, 2, 3, 4]
        assert sorted(network.batches) == [[1, 2], [3, 4]]

    batched(network, test, threads=2)


def test_with_a_delay_an_image_waits_for_others_until_the_batch_is_full(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        started = asyncio.get_running_loop().time()
        first = asyncio.create_task(values(batcher, 1))
        await asyncio.sleep(0.02)
        assert network.batches == []
        await asyncio.gather(first, *(values(batcher, value) for value in (2, 3, 4)))

        assert network.batches == [[1, 2, 3, 4]]
        assert asyncio.get_running_loop().time() - started < 10  # not the delay

    batched(network, test, max_delay=15)


def test_with_a_delay_a_batch_that_does_not_fill_is_computed_when_it_is_over(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        assert await asyncio.gather(values(batcher, 1), values(batcher, 2)) == [[1], [2]]
        assert network.batches == [[1, 2]]

    batched(network, test, max_delay=0.02)


def test_a_batch_that_fails_is_computed_one_by_one_and_only_the_bad_image_fails(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(batcher: Batcher) -> None:
        network.open.clear()
        first = asyncio.create_task(values(batcher, 1))
        await busy(network)
        others = [asyncio.create_task(values(batcher, *request)) for request in ([2], [255, 3], [4])]
        await asyncio.sleep(0.01)
        network.open.set()

        assert await first == [1]
        assert await asyncio.gather(*others) == [[2], [-1, 3], [4]]
        assert network.batches == [[1], [2, 255, 3, 4], [2], [255], [3], [4]]

    batched(network, test)
    assert "cannot compute 255" in caplog.text


def test_a_cancelled_request_is_never_computed_and_its_place_in_the_batch_is_anothers(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        network.open.clear()
        first = asyncio.create_task(values(batcher, 1))
        await busy(network)
        gone = [asyncio.create_task(values(batcher, 90 + number, 91 + number)) for number in range(5)]
        stays = asyncio.create_task(values(batcher, 2))
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        network.open.set()

        assert (await first, await stays) == ([1], [2])
        assert network.batches == [[1], [2]]

    batched(network, test)


def test_a_request_cancelled_while_it_is_computed_leaves_the_others_of_its_batch_alone(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        network.open.clear()
        first = asyncio.create_task(values(batcher, 1))
        await busy(network)
        gone, stays = asyncio.create_task(values(batcher, 90, 91, 92)), asyncio.create_task(values(batcher, 2, 3))
        await asyncio.sleep(0.01)
        network.open.set()
        await first
        network.open.clear()
        while len(network.batches) < 2:
            await asyncio.sleep(0.001)
        gone.cancel()
        network.open.set()

        assert await stays == [2, 3]
        assert network.batches == [[1], [90, 91, 92, 2], [3]]

    batched(network, test)


def test_a_queue_admits_as_many_images_as_it_holds_and_refuses_the_rest_at_once(network: Network) -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.admit(8):
            with pytest.raises(QueueFullError) as error, batcher.admit(3):
                pass
            with batcher.admit(2):
                pass
        with batcher.admit(10):
            pass
        assert error.value.status == 503
        assert error.value.headers == {"Retry-After": "1"}

    batched(network, test)


def test_urgent_work_gets_the_next_free_thread_and_cancelled_work_never_runs() -> None:
    order: list[str] = []

    async def test() -> None:
        threads, started, go_on = Threads(1), threading.Event(), threading.Event()

        def first() -> None:
            started.set()
            go_on.wait(10)
            order.append("first")

        async def urgent() -> None:
            await threads.acquire(urgent=True)
            await threads.run_acquired(order.append, "urgent")

        running = asyncio.create_task(threads.run(first))
        await asyncio.to_thread(started.wait)
        decode = asyncio.create_task(threads.run(order.append, "decode"))
        cancelled = asyncio.create_task(threads.run(order.append, "cancelled"))
        batch = asyncio.create_task(urgent())
        await asyncio.sleep(0.01)
        cancelled.cancel()
        go_on.set()
        await asyncio.gather(running, decode, batch)
        assert threads.free == 1
        threads.close()

    asyncio.run(test())
    assert order == ["first", "urgent", "decode"]


def test_a_thread_freed_for_work_that_is_cancelled_at_that_moment_is_not_lost() -> None:
    async def test() -> None:
        threads = Threads(1)
        await threads.acquire()
        waiting = asyncio.create_task(threads.acquire())
        await asyncio.sleep(0)
        threads.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert threads.free == 1
        threads.close()

    asyncio.run(test())
