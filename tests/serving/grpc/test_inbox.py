"""The memory for messages that arrive: time and turns for clients that send nothing, and the total."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from serving.grpc import server as grpc_server
from serving.grpc.inbox import Inbox
from tests.serving.brake import Brake
from tests.serving.grpc.conftest import HEALTH, INFER, METHOD, REFLECTION, admitted, infer_request, serving
from tests.waiting import eventually


async def slow_message() -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield INFER


def test_a_message_that_takes_too_long_ends_its_call(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder, body_timeout=0.3) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.channel.stream_unary(METHOD + "ModelInfer")(slow_message())
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert str(caught.value.details()).startswith("body_timeout: ")

    asyncio.run(test())


def test_clients_that_send_nothing_leave_room_for_others(package_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "PATIENCE", 0.5)

    async def test() -> None:
        async with serving(package_folder, max_body_bytes=100_000, max_total_bytes=300_000) as client:
            slow = [client.channel.stream_unary(METHOD + "ModelInfer")(slow_message()) for _ in range(30)]
            await asyncio.sleep(0.2)
            async with asyncio.timeout(3):  # all of them in turn would take 5 s
                await client.call("ModelInfer", INFER)
            assert grpc.StatusCode.DEADLINE_EXCEEDED in [await call.code() for call in slow if call.done()]
            for call in slow:
                call.cancel()

    asyncio.run(test())


def test_clients_without_a_key_leave_the_room_of_the_others(package_folder: Path) -> None:
    metadata = [("x-api-key", "client")]

    async def test() -> None:
        async with serving(package_folder, api_keys="client", max_body_bytes=10_000, max_total_bytes=10_000) as client:
            methods = (HEALTH + "Check", HEALTH + "Watch", REFLECTION) * 10
            silent = [client.channel.stream_stream(method)(slow_message()) for method in methods]
            await asyncio.sleep(0.2)
            async with asyncio.timeout(grpc_server.PATIENCE / 2):
                for _ in range(5):
                    await client.call("ModelInfer", INFER, metadata=metadata)
            assert not all(call.done() for call in silent)
            for call in silent:
                call.cancel()

    asyncio.run(test())


class Call:
    """A call whose message has arrived, or never does."""

    def __init__(self, host: str, message: bytes | None = None) -> None:
        self.host = host
        self.message = message

    def peer(self) -> str:
        return f"ipv4:{self.host}:5000"

    async def read(self) -> bytes:
        return self.message or await asyncio.get_running_loop().create_future()


def test_a_host_that_sends_nothing_leaves_turns_to_others() -> None:
    async def test() -> None:
        inbox = Inbox(10, 10, timeout=60, patience=0.05)
        deadline = asyncio.get_running_loop().time() + 5

        async def receive(call: Call) -> bytes | None:
            async with inbox.lease() as receive:
                return await receive(call, deadline)

        async def call_again_and_again() -> None:
            while True:
                silent.append(asyncio.create_task(receive(Call("10.0.0.1"))))
                await asyncio.sleep(0.01)

        silent: list[asyncio.Task[bytes | None]] = []
        attack = asyncio.create_task(call_again_and_again())
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            waiting = [receive(Call(host, b"message")) for host in ("10.0.0.2", "10.0.0.2", "10.0.0.3")]
            assert await asyncio.gather(*waiting) == [b"message"] * 3
        for task in (attack, *silent):
            task.cancel()
        await asyncio.gather(attack, *silent, return_exceptions=True)
        assert inbox._free == 10

    asyncio.run(test())


def test_room_that_was_granted_to_a_call_that_was_just_cancelled_is_given_back() -> None:
    async def test() -> None:
        inbox = Inbox(10, 10, timeout=60, patience=60)
        deadline = asyncio.get_running_loop().time() + 60

        async def receive_next(call: Call) -> None:
            async with inbox.lease() as receive:
                await receive(call, deadline)

        async with inbox.lease() as receive:
            await receive(Call("10.0.0.1", b"message"), deadline)
            leaving = asyncio.create_task(receive_next(Call("10.0.0.2", b"message")))
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])

        assert leaving.cancelled()
        assert inbox._free == 10

    asyncio.run(test())


def test_messages_together_take_no_more_than_the_total(package_folder: Path, brake: Brake) -> None:
    message = infer_request(np.zeros((100, 8, 8, 1), np.uint8)).SerializeToString()

    async def test() -> None:
        limits = {"max_body_bytes": 7000, "max_total_bytes": 15_000, "max_images": 100, "max_queue": 1000}
        async with serving(package_folder, **limits) as client:
            brake.on()
            calls = [asyncio.ensure_future(client.call("ModelInfer", message)) for _ in range(6)]
            await eventually(lambda: admitted(client) == 200)
            await asyncio.sleep(0.2)
            assert admitted(client) == 200  # a third message might not fit
            brake.released.set()
            await asyncio.gather(*calls)

    asyncio.run(test())
