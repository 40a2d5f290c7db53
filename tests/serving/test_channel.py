"""Calls over a socket pair between two processes, here between the two ends in one event loop."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import ChangeRefusedError, OverloadedError
from serving.process import supervisor as module
from serving.process.channel import Channel, Functions, PeerLostError
from serving.process.latest import Latest
from serving.process.supervisor import Supervisor
from serving.settings import Settings
from serving.telemetry.logs import request_id
from tests.waiting import PATIENCE


def connected(functions: Functions, test: Callable[[Channel, Channel, list[str]], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a channel whose other end, the second, has these functions."""

    async def run() -> None:
        lost: list[str] = []
        near, far = socket.socketpair()
        caller = await Channel.open(near, {}, lost=lambda: lost.append("caller"))
        answering = await Channel.open(far, functions, lost=lambda: lost.append("answering"))
        try:
            await test(caller, answering, lost)
        finally:
            caller.close()
            answering.close()

    asyncio.run(asyncio.wait_for(run(), 10))


async def add(first: int, second: int) -> int:
    await asyncio.sleep(0.01 * second)
    return first + second


async def refuse() -> None:
    raise OverloadedError


async def fail() -> None:
    raise RuntimeError("/secret/path")


async def hang() -> None:
    await asyncio.sleep(60)


def test_a_call_passes_the_id_of_the_request_that_it_is_made_for() -> None:
    async def current_id() -> str | None:
        return request_id.get()

    async def call_for(caller: Channel, current: str) -> str:
        request_id.set(current)
        return await caller.call("current_id")

    async def test(caller: Channel, _: Channel, __: list[str]) -> None:
        assert await asyncio.gather(call_for(caller, "a"), call_for(caller, "b")) == ["a", "b"]
        assert await caller.call("current_id") is None

    connected({"current_id": current_id}, test)


def test_concurrent_calls_get_their_own_results() -> None:
    async def test(caller: Channel, _: Channel, __: list[str]) -> None:
        assert await asyncio.gather(caller.call("add", 1, 2), caller.call("add", 3, 1)) == [3, 4]

    connected({"add": add}, test)


@pytest.mark.parametrize(("function", "code"), [("refuse", "overloaded"), ("fail", "internal_error")])
def test_an_error_of_the_other_end_travels_back_by_its_code(function: str, code: str) -> None:
    async def test(caller: Channel, _: Channel, __: list[str]) -> None:
        with pytest.raises(ChangeRefusedError) as caught:
            await caller.call(function)
        assert caught.value.code == code
        assert "secret" not in str(caught.value)

    connected({"refuse": refuse, "fail": fail}, test)


def test_calls_to_an_end_that_closes_raise() -> None:
    async def test(caller: Channel, answering: Channel, lost: list[str]) -> None:
        call = asyncio.create_task(caller.call("hang"))
        await asyncio.sleep(0.01)
        answering.close()
        with pytest.raises(PeerLostError):
            await call
        with pytest.raises(PeerLostError):
            await caller.call("hang")
        assert lost == ["caller"]

    connected({"hang": hang}, test)


def test_an_end_that_does_not_read_does_not_hold_up_the_other() -> None:
    async def test() -> None:
        noted = asyncio.Event()

        async def note() -> None:
            noted.set()

        near, far = socket.socketpair()
        with far:
            caller = await Channel.open(near, {"note": note}, lost=lambda: None)
            calls = [asyncio.create_task(caller.call("add", "a" * 1_000_000)) for _ in range(8)]
            await asyncio.sleep(0.1)
            far.sendall(b'["call", 0, "note", [], null]\n')
            async with asyncio.timeout(PATIENCE):
                await noted.wait()
            caller.close()
            assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {PeerLostError}

    asyncio.run(test())


def test_large_messages_arrive_whole() -> None:
    async def test(caller: Channel, _: Channel, __: list[str]) -> None:
        text = "0123456789\n" * 100_000
        assert await asyncio.gather(*(caller.call("echo", text, number) for number in range(3))) == [
            [text, number] for number in range(3)
        ]

    async def echo(*arguments: Any) -> list[Any]:
        return list(arguments)

    connected({"echo": echo}, test)


def test_those_who_ask_at_the_same_time_share_a_result_that_is_not_older_than_their_question() -> None:
    async def test() -> None:
        calls = itertools.count(1)
        may_end = asyncio.Event()

        async def slow() -> int:
            number = next(calls)
            await may_end.wait()
            return number

        latest = Latest(slow)
        first = asyncio.create_task(latest.get())
        await asyncio.sleep(0)
        later = [asyncio.create_task(latest.get()) for _ in range(5)]
        await asyncio.sleep(0)
        may_end.set()
        assert await first == 1
        assert await asyncio.gather(*later) == [2] * 5
        assert await latest.get() == 3

    asyncio.run(test())


@pytest.mark.parametrize(("has_started", "intervals"), [(True, 6), (False, 10)])
def test_a_worker_whose_event_loop_stands_still_is_killed_later_while_it_loads(
    monkeypatch: pytest.MonkeyPatch, has_started: bool, intervals: int
) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.02)
    waited: list[float] = []

    async def test() -> None:
        killed = asyncio.Event()
        worker: Any = SimpleNamespace(
            tell=lambda _: asyncio.create_task(killed.wait()),
            has_started=has_started,
            process=SimpleNamespace(pid=1),
            kill=killed.set,
        )
        supervisor = Supervisor(Settings(load_timeout=0.08), None, None)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        started = loop.time()
        watching = asyncio.create_task(supervisor._watch(worker))
        await killed.wait()
        waited.append(loop.time() - started)
        watching.cancel()

    asyncio.run(asyncio.wait_for(test(), 10))
    assert waited[0] > intervals * 0.02 * 0.99
