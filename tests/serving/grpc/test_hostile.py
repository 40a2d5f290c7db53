"""Bytes that are not gRPC leave the server as it was, and are not logged."""

import asyncio
import random
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.servers import running_server
from tests.serving.grpc.conftest import (
    HEALTH,
    INFER,
    METHOD,
    PREFACE,
    REFLECTION,
    admitted,
    frame,
    grpc_port,
    serving,
)
from tests.waiting import PATIENCE, eventually


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


def test_a_watch_whose_client_reads_nothing_leaves_the_health_to_others(package_folder: Path) -> None:
    no_window = frame(4, 0, 0, struct.pack(">HI", 4, 0))  # the client takes no byte of any stream

    async def test() -> None:
        async with serving(package_folder) as client:
            host, port = client.address.split(":")
            with socket.create_connection((host, int(port))) as connection:
                watch = frame(1, 4, 1, headers(HEALTH.encode() + b"Watch")) + frame(0, 1, 1, bytes(5))
                connection.sendall(PREFACE + no_window + watch)
                await asyncio.sleep(0.3)
                client.models.draining = True
                async with asyncio.timeout(10):
                    while await client.call(HEALTH + "Check") != b"\x08\x02":  # NOT_SERVING
                        await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(test(), PATIENCE))


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
            await eventually(lambda: admitted(client) == 0)

    asyncio.run(test())
    assert [record for record in caplog.records if record.name == "serving.grpc.calls"] == []
