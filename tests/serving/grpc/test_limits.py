"""What calls may cost: keys, limits, deadlines, errors, and what a call leaves behind."""

import asyncio
import logging
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import REGISTRY

from serving.engine.served_model import ServedModel
from serving.grpc import messages
from serving.grpc import server as grpc_server
from serving.grpc.inbox import Inbox
from serving.grpc.service import PARSED_AT_ONCE
from tests.servers import PATIENCE, running_server
from tests.serving.grpc.conftest import METHOD, Client, grpc_port, infer_request, new_channel, serving
from tests.serving.test_overload import Brake, wait_until

GREY = np.random.default_rng(7).integers(0, 256, (1, 8, 8, 1), np.uint8)
INFER = infer_request(GREY).SerializeToString()
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def admitted(client: Client) -> int:
    (model,) = client.models
    return model._admitted


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
            pixels = np.repeat(GREY, 2 * PARSED_AT_ONCE // 64 - 100, axis=0)
            answer = await client.call("ModelInfer", infer_request(pixels).SerializeToString())
            one = await client.call("ModelInfer", INFER)

        rows = np.frombuffer(messages.ModelInferResponse.FromString(answer).raw_output_contents[0], "<f4")
        row = np.frombuffer(messages.ModelInferResponse.FromString(one).raw_output_contents[0], "<f4")
        np.testing.assert_allclose(rows.reshape(len(pixels), -1), np.tile(row, (len(pixels), 1)), atol=1e-6)

    asyncio.run(test())


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "Bearer client")],
        [("authorization", "bearer  client ")],
        [("x-api-key", "client")],
        [("authorization", "Basic abc"), ("x-api-key", "client")],
        [("authorization", "Bearer admin")],
    ],
)
def test_a_key_opens_every_method(package_folder: Path, metadata: list[tuple[str, str]]) -> None:
    async def test() -> None:
        async with serving(package_folder, api_keys="client", admin_keys="admin") as client:
            for method in ("ServerMetadata", "RepositoryIndex"):
                await client.call(method, metadata=metadata)
            await client.call("ModelInfer", INFER, metadata=metadata)

    asyncio.run(test())


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [("authorization", "Bearer other")],
        [("authorization", "client")],
        [("x-api-key", "")],
        [("x-api-key", "é")],
    ],
)
def test_without_a_key_only_probes_and_the_description_are_open(
    package_folder: Path, metadata: list[tuple[str, str]] | None
) -> None:
    async def test() -> None:
        async with serving(package_folder, api_keys="client") as client:
            closed = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer", "RepositoryIndex")
            for method in closed if metadata is None or metadata[0][1].isascii() else ():
                refused = await client.refusal(method, INFER, metadata=metadata)
                assert refused == ("UNAUTHENTICATED", "unauthorized")
            for method in ("ServerLive", "ServerReady", HEALTH + "Check"):
                assert await client.call(method)
            assert await described(client)

    asyncio.run(test())


def test_probes_need_a_key_if_the_settings_say_so(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder, api_keys="client", probes_need_key=True) as client:
            for method in ("ServerLive", "ServerReady", HEALTH + "Check", HEALTH + "Watch"):
                assert await client.refusal(method) == ("UNAUTHENTICATED", "unauthorized")

    asyncio.run(test())


async def described(client: Client) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    response = await client.channel.stream_unary(REFLECTION)([request.SerializeToString()])
    services = reflection_pb2.ServerReflectionResponse.FromString(response).list_services_response.service
    return [service.name for service in services]


def test_reflection_describes_every_service(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            names = await described(client)
            for name in names:
                request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
                stream = client.channel.stream_stream(REFLECTION)([request.SerializeToString()])
                (answer,) = [reflection_pb2.ServerReflectionResponse.FromString(answer) async for answer in stream]
                assert answer.file_descriptor_response.file_descriptor_proto
        assert names == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", messages.SERVICE]

    asyncio.run(test())


def test_a_full_queue_is_unavailable_and_says_when_to_try_again(package_folder: Path, brake: Brake) -> None:
    async def test() -> None:
        async with serving(package_folder, max_queue=4) as client:
            brake.on()
            calls = [asyncio.ensure_future(client.call("ModelInfer", INFER)) for _ in range(4)]
            await wait_until(lambda: admitted(client) == 4)
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
            await wait_until(lambda: admitted(client) == 0)
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
            await wait_until(lambda: brake.batches == [1])
            calls = [client.call("ModelInfer", INFER) for _ in range(20)]
            await wait_until(lambda: admitted(client) == 21)
            for call in calls:
                call.cancel()
            await wait_until(lambda: admitted(client) == 1)
            brake.released.set()
            await first
            assert brake.batches == [1]

    asyncio.run(test())


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


def test_messages_together_take_no_more_than_the_total(package_folder: Path, brake: Brake) -> None:
    message = infer_request(np.zeros((100, 8, 8, 1), np.uint8)).SerializeToString()

    async def test() -> None:
        limits = {"max_body_bytes": 7000, "max_total_bytes": 15_000, "max_images": 100, "max_queue": 1000}
        async with serving(package_folder, **limits) as client:
            brake.on()
            calls = [asyncio.ensure_future(client.call("ModelInfer", message)) for _ in range(6)]
            await wait_until(lambda: admitted(client) == 200)
            await asyncio.sleep(0.2)
            assert admitted(client) == 200  # a third message might not fit
            brake.released.set()
            await asyncio.gather(*calls)

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
                await wait_until(lambda: admitted(client) == 2)
                assert (await client.refusal("ServerLive"))[0] == "RESOURCE_EXHAUSTED"
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await third.unary_unary(METHOD + "ServerLive")(b"")
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                brake.released.set()
                await asyncio.gather(*calls)
            await client.call("ServerLive")

    asyncio.run(test())


def test_an_unexpected_error_is_logged_and_not_told(
    package_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError(f"secret of {package_folder}")

    async def test() -> None:
        async with serving(package_folder) as client:
            monkeypatch.setattr(ServedModel, "infer", fail)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("ModelInfer", INFER)
            assert caught.value.code() == grpc.StatusCode.INTERNAL
            assert caught.value.details() == "internal_error: the server failed to answer; its log has the details"

    asyncio.run(test())
    assert "secret of" in caplog.text


def count(route: str, status: str) -> float:
    return REGISTRY.get_sample_value("pdeinfer_requests_total", {"route": route, "status": status}) or 0


def test_calls_are_counted_logged_and_have_ids(package_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serving.access")
    monitored = ((METHOD + "ModelInfer", "OK"), (METHOD + "ModelInfer", "NOT_FOUND"), (HEALTH + "Check", "OK"))
    before = [count(*entry) for entry in monitored]

    async def test() -> None:
        async with serving(package_folder, access_log=True) as client:
            call = client.call("ModelInfer", INFER, metadata=[("x-request-id", "my-id-1")])
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "my-id-1"
            unknown = infer_request(GREY, model="no").SerializeToString()
            assert await client.refusal("ModelInfer", unknown) == ("NOT_FOUND", "model_not_found")
            await client.call(HEALTH + "Check")

    asyncio.run(test())
    assert [count(*entry) for entry in monitored] == [value + 1 for value in before]
    logged = [record.fields for record in caplog.records if record.name == "serving.access"]  # type: ignore[attr-defined]
    assert [(fields["path"], fields["status"]) for fields in logged] == list(monitored)
    assert {fields["client"] for fields in logged} == {"127.0.0.1"}


def test_a_stopping_server_is_alive_but_not_ready(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            watch = client.channel.unary_stream(HEALTH + "Watch")(b"")
            states = [health_pb2.HealthCheckResponse.FromString(await watch.read()).status]
            client.models.draining = True
            states.append(health_pb2.HealthCheckResponse.FromString(await watch.read()).status)
            assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
            assert not messages.ServerReadyResponse.FromString(await client.call("ServerReady")).ready
            assert messages.ServerLiveResponse.FromString(await client.call("ServerLive")).live

    asyncio.run(test())


def test_health_of_an_unknown_service_is_not_found(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            request = health_pb2.HealthCheckRequest(service="other").SerializeToString()
            assert (await client.refusal(HEALTH + "Check", request))[0] == "NOT_FOUND"

    asyncio.run(test())


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def headers(path: bytes, **more: bytes) -> bytes:
    """Return the headers of a call, encoded without compression."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"x",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        **{name.replace("_", "-").encode(): value for name, value in more.items()},
    }
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def send(address: str, content: bytes) -> None:
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port))) as connection:
        connection.sendall(content)


def test_a_method_that_is_not_text_does_not_end_the_server(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            for _ in range(3):
                send(client.address, PREFACE + frame(1, 5, 1, headers(b"/inference/\xff\xfe")))
                await asyncio.sleep(0.3)
            async with asyncio.timeout(10):
                await client.call("ModelInfer", INFER, wait_for_ready=True)

    asyncio.run(test())


def test_metadata_is_not_logged(package_folder: Path, tmp_path: Path) -> None:
    secrets = {"authorization": b"Bearer secret\xff", "x_api_key": b"secret\xff", "grpc_timeout": b"secret"}
    with running_server(tmp_path / "log", str(package_folder), "--grpc-port", "0", "--access-log") as server:
        address = f"127.0.0.1:{grpc_port(server)}"
        for name, secret in secrets.items():
            send(address, PREFACE + frame(1, 5, 1, headers(METHOD.encode() + b"ModelInfer", **{name: secret})))
        time.sleep(0.3)
        with grpc.insecure_channel(address) as channel:
            channel.unary_unary(METHOD + "ModelInfer")(INFER, timeout=PATIENCE)
        server.wait_for_log("ModelInfer")

        assert "secret" not in server.log.read_text()


def test_malformed_connections_leave_the_server_as_it_was(
    package_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(1)  # noqa: S311
    paths = (METHOD + "ModelInfer", METHOD + "ModelReady", HEALTH + "Check", HEALTH + "Watch", REFLECTION, "/x")

    def attack() -> bytes:
        content = PREFACE
        for stream in range(1, 2 * chance.randint(1, 10), 2):
            body = chance.choice([INFER, chance.randbytes(chance.randrange(200)), b""])
            size = chance.choice([len(body), len(body), len(body) + 5, 2**31])
            content += frame(1, chance.choice([4, 5]), stream, headers(chance.choice(paths).encode()))
            content += frame(
                0, chance.choice([0, 1]), stream, struct.pack(">BI", chance.choice([0, 0, 1, 7]), size) + body
            )
            if chance.random() < 0.3:
                content += frame(3, 0, stream, b"\0\0\0\x08")
        changed = bytearray(content)
        for _ in range(chance.choice([0, 0, 1, 3])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)

    async def test() -> None:
        async with serving(package_folder) as client:
            for _ in range(300):
                await asyncio.to_thread(send, client.address, attack())
            await asyncio.sleep(0.5)  # one of them may have ended the server, which is then started again
            async with asyncio.timeout(20):
                await client.call("ModelInfer", INFER, wait_for_ready=True)
            await wait_until(lambda: admitted(client) == 0)

    asyncio.run(test())
    assert [record for record in caplog.records if record.name == "serving.grpc.calls"] == []
