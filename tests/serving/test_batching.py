"""Batches: which items are processed together, in which order, and which are not processed at all."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.engine import batching
from serving.engine.batching import Batcher
from serving.engine.threads import Threads
from serving.telemetry.metrics import ModelMetrics


class Work:
    """Returns every number as it is, records the batches, and blocks while it is not `open`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        assert self.open.wait(10)
        return numbers.copy()


Numbers = Batcher[int, int]


@pytest.fixture
def work() -> Work:
    return Work()


def batched(
    work: Callable[[list[int]], list[int]],
    test: Callable[[Numbers], Coroutine[Any, Any, None]],
    *,
    threads: int = 1,
    max_batch_size: int = 4,
    max_delay: float = 0.0,
    max_inline: float = 0.0,
) -> None:
    """Run a test with a batcher, in its own event loop."""

    async def run() -> None:
        pool = Threads(threads)
        queue_seconds = ModelMetrics("test", "1").compute_queue_seconds
        batcher = Batcher(
            work,
            pool,
            queue_seconds,
            max_batch_size=max_batch_size,
            max_batches=threads,
            max_delay=max_delay,
            max_inline=max_inline,
        )
        try:
            await test(batcher)
        finally:
            if isinstance(work, Work):
                work.open.set()
            await asyncio.to_thread(pool.close)
        assert batcher._waiting == 0
        assert pool.free == threads

    asyncio.run(asyncio.wait_for(run(), 60))


async def busy(work: Work) -> None:
    """Wait until the first batch is being processed."""
    while not work.batches:
        await asyncio.sleep(0.001)


def test_items_that_wait_for_a_thread_become_one_batch_in_order(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        work.open.clear()
        first = asyncio.create_task(batcher.run([1]))
        await busy(work)
        others = [asyncio.create_task(batcher.run([value])) for value in (2, 3, 4)]
        await asyncio.sleep(0.01)
        work.open.set()

        assert await first == [1]
        assert await asyncio.gather(*others) == [[2], [3], [4]]
        assert work.batches == [[1], [2, 3, 4]]

    batched(work, test)


def test_batches_are_filled_across_requests_and_a_large_request_is_split(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        work.open.clear()
        first = asyncio.create_task(batcher.run([1]))
        await busy(work)
        small, large = asyncio.create_task(batcher.run([2, 3])), asyncio.create_task(batcher.run([4, 5, 6, 7, 8]))
        await asyncio.sleep(0.01)
        work.open.set()

        assert await large == [4, 5, 6, 7, 8]
        assert (await first, await small) == ([1], [2, 3])
        assert work.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]

    batched(work, test)


def test_a_large_request_on_an_idle_server_is_spread_over_its_threads(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        assert await batcher.run([1, 2, 3, 4]) == [1, 2, 3, 4]
        assert sorted(work.batches) == [[1, 2], [3, 4]]

    batched(work, test, threads=2)


def test_with_a_delay_an_item_waits_until_the_batch_is_full(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        started = asyncio.get_running_loop().time()
        first = asyncio.create_task(batcher.run([1]))
        await asyncio.sleep(0.02)
        assert work.batches == []
        await asyncio.gather(first, *(batcher.run([value]) for value in (2, 3, 4)))

        assert work.batches == [[1, 2, 3, 4]]
        assert asyncio.get_running_loop().time() - started < 10  # not the delay

    batched(work, test, max_delay=15)


def test_a_batch_that_does_not_fill_is_processed_after_the_delay(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        assert await asyncio.gather(batcher.run([1]), batcher.run([2])) == [[1], [2]]
        assert work.batches == [[1, 2]]

    batched(work, test, max_delay=0.02)


def test_a_cancelled_request_gives_its_place_in_the_batch_to_another(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        work.open.clear()
        first = asyncio.create_task(batcher.run([1]))
        await busy(work)
        gone = [asyncio.create_task(batcher.run([90 + number, 91 + number])) for number in range(5)]
        stays = asyncio.create_task(batcher.run([2]))
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        work.open.set()

        assert (await first, await stays) == ([1], [2])
        assert work.batches == [[1], [2]]

    batched(work, test)


def test_cancelling_a_request_in_progress_does_not_affect_others_of_its_batch(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        work.open.clear()
        first = asyncio.create_task(batcher.run([1]))
        await busy(work)
        gone, stays = asyncio.create_task(batcher.run([90, 91, 92])), asyncio.create_task(batcher.run([2, 3]))
        await asyncio.sleep(0.01)
        work.open.set()
        await first
        work.open.clear()
        while len(work.batches) < 2:
            await asyncio.sleep(0.001)
        gone.cancel()
        work.open.set()

        assert await stays == [2, 3]
        assert work.batches == [[1], [90, 91, 92, 2], [3]]

    batched(work, test)


def test_a_batch_that_would_take_long_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH_SECONDS", 0.1)
    sizes: list[int] = []

    def slow(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        time.sleep(0.04 * len(numbers))
        return numbers

    async def test(batcher: Numbers) -> None:
        await batcher.run([1])
        await batcher.run(list(range(6)))

    batched(slow, test, max_batch_size=6)
    assert sizes[0] == 1
    assert max(sizes[1:]) <= 2


def test_cancelled_work_never_runs() -> None:
    order: list[str] = []

    async def test() -> None:
        threads = Threads(1)
        await threads.acquire()
        stays = asyncio.create_task(threads.run(order.append, "stays"))
        cancelled = asyncio.create_task(threads.run(order.append, "cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        threads.release()
        await asyncio.gather(stays, cancelled, return_exceptions=True)
        assert threads.free == 1
        threads.close()

    asyncio.run(test())
    assert order == ["stays"]


def test_shares_get_the_same_time_however_long_their_work_takes_or_as_much_as_their_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0

    async def time_of(seconds: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
        """Keep shares busy for 100 seconds with work of some seconds each, and return the time that each got."""
        threads = Threads(1)
        used = dict.fromkeys(seconds, 0.0)

        def work(name: str) -> None:
            nonlocal clock
            clock += seconds[name]
            if sum(used.values()) < 100:
                used[name] += seconds[name]

        async def keep_busy(name: str, share: Threads) -> None:
            while sum(used.values()) < 100:
                await share.run(work, name)

        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
        shares = {name: threads.share(weights.get(name, 1)) for name in seconds}
        await asyncio.gather(*(keep_busy(name, share) for name, share in shares.items() for _ in range(8)))
        threads.close()
        return used

    equal = asyncio.run(time_of({"slow": 1, "fast": 0.125}, {}))
    weighted = asyncio.run(time_of({"heavy": 0.5, "light": 0.5}, {"light": 0.25}))

    assert 0.9 < equal["fast"] / equal["slow"] < 1.1
    assert 3.5 < weighted["heavy"] / weighted["light"] < 4.5


@pytest.mark.parametrize("count", [1, 2])
def test_work_of_an_idle_share_is_next_however_much_others_have_waiting(count: int) -> None:
    started: list[str] = []

    def work(name: str) -> int:
        started.append(name)
        time.sleep(0 if name == "idle" else 0.005)
        return len(started)

    async def test() -> None:
        threads = Threads(count)
        await threads.run(time.sleep, 0.1)  # the idle share's own past does not count against it
        shares = {name: threads.share() for name in "abc"}
        tasks = [asyncio.create_task(share.run(work, name)) for name, share in shares.items() for _ in range(400)]
        waits = []
        for _ in range(5):
            await asyncio.sleep(0.05)
            before = len(started)
            waits.append(await threads.run(work, "idle") - before)
        assert not tasks[-1].done()
        assert sorted(waits)[2] <= 2 + count  # and not a third of the hundreds that wait
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        threads.close()

    asyncio.run(test())


def test_a_share_saves_no_turns_while_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def test() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: float(len(order)))
        threads = Threads(1)
        idle, steady = threads.share(), threads.share()
        for _ in range(10):
            await steady.run(order.append, "alone")
        await threads.acquire()
        tasks = [
            asyncio.create_task(share.run(order.append, name))
            for share, name in ((idle, "idle"), (steady, "steady")) * 6
        ]
        await asyncio.sleep(0)
        threads.release()
        await asyncio.gather(*tasks)
        threads.close()

    asyncio.run(test())
    assert Counter(order[10:16]) == {"idle": 3, "steady": 3}


def test_a_thread_handed_to_work_that_was_just_cancelled_is_not_lost() -> None:
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


def test_a_thread_stays_busy_while_it_runs_abandoned_work() -> None:
    async def test() -> None:
        threads, go_on = Threads(1), threading.Event()
        running = asyncio.create_task(threads.run(go_on.wait, 10))
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert threads.free == 0
        next_one = asyncio.create_task(threads.run(threading.get_ident))
        await asyncio.sleep(0.01)
        assert not next_one.done()
        go_on.set()
        await next_one
        assert threads.free == 1
        threads.close()

    asyncio.run(test())


def test_short_batches_run_in_the_event_loop_and_long_ones_in_a_thread() -> None:
    used: list[threading.Thread] = []
    seconds = [0.0, 0.0, 0.1, 0.1, 0.0, 0.0]  # of each batch

    def work(numbers: list[int]) -> list[int]:
        used.append(threading.current_thread())
        time.sleep(seconds[len(used) - 1])
        return numbers.copy()

    async def test(batcher: Numbers) -> None:
        for number in range(len(seconds)):
            assert await batcher.run([number]) == [number]

    batched(work, test, max_batch_size=1, max_inline=0.05)

    # The first is not known to be short, and each later one is expected to take as long as the one before.
    main = threading.main_thread()
    assert [thread is main for thread in used] == [False, True, True, False, False, True]


def test_requests_that_arrive_meanwhile_are_the_next_batch_also_in_the_event_loop(work: Work) -> None:
    async def test(batcher: Numbers) -> None:
        await batcher.run([0])
        results = await asyncio.gather(*(batcher.run([number]) for number in range(1, 8)))

        assert results == [[number] for number in range(1, 8)]
        assert work.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]

    batched(work, test, max_inline=60)


def test_an_error_in_the_event_loop_frees_the_thread() -> None:
    async def test() -> None:
        threads = Threads(1)
        await threads.acquire()
        with pytest.raises(ZeroDivisionError):
            threads.run_inline(divmod, 1, 0)
        assert threads.free == 1
        threads.close()

    asyncio.run(test())
