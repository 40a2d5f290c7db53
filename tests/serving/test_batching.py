"""Batches: which items are processed together, in which order, and which are not processed at all."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine import batching
from serving.engine.batching import Batcher
from serving.engine.threads import Threads
from serving.telemetry.metrics import ModelMetrics
from tests.waiting import PATIENCE


class Work:
    """Returns every number as it is, records the batches, and blocks while it is not `open`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        assert self.open.wait(PATIENCE)
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


class Places:
    """Returns every number as it is after some seconds, and records the batches and whether the event loop ran them.

    Attributes:
        clock: the seconds so far, which no machine is too busy for.
    """

    def __init__(self, *seconds: float) -> None:
        self.clock = 0.0
        self.batches: list[list[int]] = []
        self.is_inline: list[bool] = []
        self.during: Callable[[], object] = lambda: None
        self._seconds = iter(seconds)

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.is_inline.append(threading.current_thread() is threading.main_thread())
        self.during()
        self.clock += next(self._seconds, 0)
        return numbers.copy()


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Places]:
    """Return a function that makes `Places` whose clock batchers read."""

    def make(*seconds: float) -> Places:
        work = Places(*seconds)
        monkeypatch.setattr(batching, "time", SimpleNamespace(monotonic=lambda: work.clock))
        return work

    return make


def test_a_batch_runs_in_the_event_loop_if_the_last_one_was_short(places: Callable[..., Places]) -> None:
    work = places(0, 0, 0.6, 0.6, 0, 0)

    async def test(batcher: Numbers) -> None:
        for number in range(6):
            assert await batcher.run([number]) == [number]

    batched(work, test, max_batch_size=1, max_inline=0.3)

    assert work.is_inline == [False, True, True, False, False, True]


def test_a_small_batch_runs_in_the_event_loop_and_a_large_one_does_not(places: Callable[..., Places]) -> None:
    work = places(0.1, 0.1, 0.1)

    async def test(batcher: Numbers) -> None:
        await batcher.run([1])
        await batcher.run([2])
        await batcher.run([1, 2, 3, 4])

    batched(work, test, max_inline=0.3)

    assert work.is_inline == [False, True, False]


def test_requests_that_arrive_while_the_event_loop_computes_are_the_next_batch() -> None:
    work = Places()
    later: list[asyncio.Task[list[int]]] = []

    async def test(batcher: Numbers) -> None:
        def send_three() -> None:
            if len(work.batches) == 2:
                later.extend(asyncio.create_task(batcher.run([number])) for number in (3, 4, 5))

        await batcher.run([1])
        work.during = send_three
        await batcher.run([2])
        assert await asyncio.gather(*later) == [[3], [4], [5]]

    batched(work, test, max_inline=60)

    assert work.batches == [[1], [2], [3, 4, 5]]
    assert work.is_inline == [False, True, True]


def test_a_turn_of_the_event_loop_computes_for_one_model() -> None:
    works = Places(), Places()

    async def test() -> None:
        pool = Threads(1)
        queue_seconds = ModelMetrics("test", "1").compute_queue_seconds
        batchers = [
            Numbers(work, pool.share(), queue_seconds, max_batch_size=4, max_batches=1, max_inline=60) for work in works
        ]
        for batcher in batchers:
            await batcher.run([1])
        await asyncio.gather(*(batcher.run([2]) for batcher in batchers))
        await asyncio.to_thread(pool.close)

    asyncio.run(test())

    assert [work.is_inline for work in works] == [[False, True], [False, False]]


@pytest.mark.parametrize("max_inline", [0.0, 60.0])
def test_a_batch_that_fails_fails_its_requests_and_no_others(max_inline: float) -> None:
    def work(numbers: list[int]) -> list[int]:
        if 7 in numbers:
            raise MemoryError
        return numbers.copy()

    async def test(batcher: Numbers) -> None:
        await batcher.run([1])
        sent = [[1, 2], [7, 3, 3, 3, 3], [4, 5, 6]]
        results = await asyncio.gather(*(batcher.run(numbers) for numbers in sent), return_exceptions=True)

        assert results[0] == [1, 2]
        assert isinstance(results[1], MemoryError)
        assert results[2] == [4, 5, 6]

    batched(work, test, max_batch_size=2, max_inline=max_inline)
