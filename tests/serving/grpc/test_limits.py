"""Limits on calls: sizes, the queue, deadlines, metadata and connections."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from prometheus_client import REGISTRY

from serving.grpc import messages, server
from serving.grpc.service import MESSAGE_PARSED_AT_ONCE
from tests.serving.brake import Brake
from tests.serving.grpc.conftest import (
    GREY,
    HEALTH,
    INFER,
    METHOD,
    PREFACE,
    admitted,
    frame,
    infer_request,
    new_channel,
    serving,
)
from tests.waiting import PATIENCE, eventually

PING, GOAWAY = 6, 7  # kinds of frames


@pytest.mark.parametrize("size", [300_000, 10_000_000])
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_refused_also_if_it_is_compressed(
    package_folder: Path, size: int, compression: grpc.Compression | None
) -> None:
    async def test() -> None:
        async with serving(package_folder, max_body_bytes=200_000) as client:
            for method in ("ModelInfer", "ModelReady", HEALTH + "Check"):
                status, _ = await client.refusal(method, b"0" * size, compression=compression)
                assert status == "RESOURCE_EXHAUSTED"
            await client.call("ModelInfer", INFER)

    asyncio.run(test())


def test_bodies_may_be_larger_than_any_message(package_folder: Path) -> None:
    async def test() -> None:
        size = 3 * 10**9
        limits = {"max_body_bytes": size, "max_total_bytes": size, "max_decoding_bytes": 3 * size}
        async with serving(package_folder, **limits) as client:
            await client.call("ModelInfer", INFER)

    asyncio.run(test())


def typed(model: str, values: int) -> bytes:
    """Return a request with so many pixel values, each two bytes long."""
    request = messages.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="UINT8", shape=(1, 8, 8, 1)).contents.uint_contents.extend([255] * values)
    message: bytes = request.SerializeToString()
    return message


def test_the_values_of_a_model_that_is_not_served_are_not_found(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            assert await client.refusal("ModelInfer", typed("other", 1000)) == ("NOT_FOUND", "model_not_found")
            await client.models.change("tiny-grey", "unload")
            assert await client.refusal("ModelInfer", typed("tiny-grey", 64)) == ("NOT_FOUND", "model_not_found")

    asyncio.run(test())


def test_too_many_values_are_refused_and_counted(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("ModelInfer", typed("tiny-grey", 257))
            details = "invalid_request: expected at most 512 bytes of uint_contents, got 514"
            assert caught.value.details() == details

    asyncio.run(test())


def test_messages_without_images_are_small(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            name = messages.ModelReadyRequest(name="x" * 2**17).SerializeToString()
            assert await client.refusal("ModelReady", name) == ("INVALID_ARGUMENT", "invalid_request")
            assert await client.refusal(HEALTH + "Check", name) == ("INVALID_ARGUMENT", "invalid_request")

    asyncio.run(test())


@pytest.mark.parametrize("message", [b"\xff", b"\x2a\x00" * 5000, b"\x0b", b"\x0a\x02\xff\xff"])
def test_malformed_messages_are_refused(package_folder: Path, message: bytes) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            assert await client.refusal("ModelInfer", message) == ("INVALID_ARGUMENT", "invalid_request")
            await client.call("ModelInfer", INFER)

    asyncio.run(test())


def test_a_large_message_is_parsed_in_a_thread_and_answered_alike(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder, max_images=2000, max_queue=2000) as client:
            pixels = np.repeat(GREY, 2 * MESSAGE_PARSED_AT_ONCE // 64 - 100, axis=0)
            answer = await client.call("ModelInfer", infer_request(pixels).SerializeToString())
            one = await client.call("ModelInfer", INFER)

        rows = np.frombuffer(messages.ModelInferResponse.FromString(answer).raw_output_contents[0], "<f4")
        row = np.frombuffer(messages.ModelInferResponse.FromString(one).raw_output_contents[0], "<f4")
        np.testing.assert_allclose(rows.reshape(len(pixels), -1), np.tile(row, (len(pixels), 1)), atol=1e-6)

    asyncio.run(test())


def test_a_full_queue_is_unavailable_and_says_when_to_try_again(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder, max_queue=4) as client:
            brake.on()
            calls = [asyncio.ensure_future(client.call("ModelInfer", INFER)) for _ in range(4)]
            await eventually(lambda: admitted(client) == 4)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("ModelInfer", INFER)
            brake.released.set()
            await asyncio.gather(*calls)

            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert str(caught.value.details()).startswith("overloaded: ")
            assert dict(caught.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "1000"
            await client.call("ModelInfer", INFER)

    asyncio.run(test())


def test_a_call_beyond_the_servers_deadline_leaves_the_queue(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder, request_timeout=0.5) as client:
            brake.on()
            calls = [client.refusal("ModelInfer", INFER) for _ in range(3)]
            assert await asyncio.gather(*calls) == [("DEADLINE_EXCEEDED", "deadline_exceeded")] * 3
            assert admitted(client) == 0
            brake.released.set()
            await client.call("ModelInfer", INFER)
            assert len(brake.batches) == 2  # the one in progress and the last call
            assert brake.batches[-1] == 1

    asyncio.run(test())


def test_a_call_beyond_its_clients_deadline_leaves_the_queue(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            brake.on()
            calls = [client.refusal("ModelInfer", INFER, timeout=0.3) for _ in range(3)]
            assert {status for status, _ in await asyncio.gather(*calls)} == {"DEADLINE_EXCEEDED"}
            await eventually(lambda: admitted(client) == 0)
            brake.released.set()
            await client.call("ModelInfer", INFER)
            assert len(brake.batches) == 2
            assert brake.batches[-1] == 1

    asyncio.run(test())


def test_a_cancelled_call_leaves_the_queue(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            brake.on()
            first = asyncio.ensure_future(client.call("ModelInfer", INFER))
            await eventually(lambda: brake.batches == [1])
            calls = [client.call("ModelInfer", INFER) for _ in range(20)]
            await eventually(lambda: admitted(client) == 21)
            for call in calls:
                call.cancel()
            await eventually(lambda: admitted(client) == 1)
            brake.released.set()
            await first
            assert brake.batches == [1]

    asyncio.run(test())


def test_metadata_over_the_limit_is_refused(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder, max_head_bytes=2048) as client:
            status, _ = await client.refusal("ServerLive", metadata=[("x-padding", "0" * 4096)])
            assert status == "RESOURCE_EXHAUSTED"
            await client.call("ServerLive")

    asyncio.run(test())


def test_connections_and_calls_over_the_limit_are_refused(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder, max_connections=2) as client:
            async with new_channel(client.address) as second, new_channel(client.address) as third:
                brake.on()
                calls = [client.call("ModelInfer", INFER), second.unary_unary(METHOD + "ModelInfer")(INFER)]
                await eventually(lambda: admitted(client) == 2)
                assert await client.refusal("ServerLive") == ("UNAVAILABLE", "overloaded")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await third.unary_unary(METHOD + "ServerLive")(b"")
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                brake.released.set()
                await asyncio.gather(*calls)
            await client.call("ServerLive")

    asyncio.run(test())


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_clients_without_a_key_leave_the_calls_of_the_others(package_folder: Path, method: str) -> None:
    metadata = [("x-api-key", "client")]

    async def test() -> None:
        async with serving(package_folder, api_keys="client", max_connections=4) as client:
            start = client.channel.stream_stream(HEALTH + method)
            calls = [start(nothing()) if method == "Check" else start([b""]) for _ in range(10)]
            await eventually(lambda: sum(call.done() for call in calls) >= 6)
            for _ in range(3):
                await client.call("ModelInfer", INFER, metadata=metadata)
            assert grpc.StatusCode.UNAVAILABLE in [await call.code() for call in calls if call.done()]
            for call in calls:
                call.cancel()

    asyncio.run(test())


async def nothing() -> AsyncIterator[bytes]:
    await asyncio.sleep(PATIENCE)
    yield b""


@pytest.mark.parametrize(("max_connections", "most"), [(1, 1), (11, 2)])
def test_watches_take_a_quarter_of_the_calls_and_the_others_are_refused_and_counted(
    package_folder: Path, max_connections: int, most: int
) -> None:
    def refused() -> float:
        return REGISTRY.get_sample_value("pdeinfer_rejected_requests_total", {"reason": "overloaded"}) or 0

    before = refused()

    async def test() -> None:
        async with serving(package_folder, max_connections=max_connections) as client:
            watch = client.channel.unary_stream(HEALTH + "Watch")
            watches = [watch(b"") for _ in range(most)]
            for call in watches:
                assert await call.read() == b"\x08\x01"  # SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(b"").read()
            assert str(caught.value.details()).startswith("overloaded: ")
            assert refused() == before + 1
            await client.call("ModelInfer", INFER)
            watches[0].cancel()  # there is room again as soon as the server knows
            async with asyncio.timeout(PATIENCE):
                state = None
                while not state:
                    with suppress(grpc.aio.AioRpcError):
                        state = await watch(b"").read()

    asyncio.run(test())


def may_ping(address: str, count: int) -> bool:
    """Send pings on a connection that has no call, each after the answer to the former; return whether all have one."""
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        connection.makefile("rb") as answers,
        suppress(ConnectionError),
    ):
        connection.sendall(PREFACE)
        for _ in range(count):
            connection.sendall(frame(PING, 0, 0, bytes(8)))
            kind = None
            while kind != PING:
                head = answers.read(9)
                if not head or head[3] == GOAWAY:
                    return False
                kind = head[3]
                answers.read(int.from_bytes(head[:3]))
        return True
    return False


@pytest.mark.parametrize(("seconds", "is_allowed"), [(0.0, True), (3600.0, False)])
def test_a_client_without_a_call_may_ping_as_often_as_the_limit_says(
    package_folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, is_allowed: bool
) -> None:
    monkeypatch.setattr(server, "_MIN_PING_SECONDS", seconds)

    async def test() -> None:
        async with serving(package_folder) as client:
            assert await asyncio.to_thread(may_ping, client.address, 1000) is is_allowed

    asyncio.run(test())
