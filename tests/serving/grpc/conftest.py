"""A server in this process and one in its own, with clients of both."""

import re
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from serving.engine.models import Models
from serving.grpc import messages
from serving.grpc.server import serve_grpc
from serving.process.port import reserve
from serving.settings import Settings
from tests.servers import Server, running_server

METHOD = f"/{messages.SERVICE}/"
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def grpc_port(server: Server) -> int:
    return int(server.wait_for_log(r"answering gRPC on [\d.]+:(\d+)")[1])


@pytest.fixture(scope="package")
def server(
    package_folder: Path, rgb_package_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A process that serves "tiny-grey" and "tiny-rgb"."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder), str(rgb_package_folder), "--grpc-port", "0") as server:
        yield server


@pytest.fixture(scope="package")
def address(server: Server) -> str:
    return f"127.0.0.1:{grpc_port(server)}"


class Client:
    """Sends serialized messages to a server in this process.

    Attributes:
        models: what the server serves.
        address: its host and port.
    """

    def __init__(self, models: Models, address: str) -> None:
        self.models = models
        self.address = address
        self.channel = new_channel(address)

    def call(self, method: str, message: bytes = b"", **options: Any) -> Any:
        path = method if method.startswith("/") else METHOD + method
        return self.channel.unary_unary(path)(message, **options)

    async def refusal(self, method: str, message: bytes = b"", **options: Any) -> tuple[str, str]:
        """Return the status and the error code, or the details, of a call that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, message, **options)
        details = caught.value.details() or ""
        found = re.match(r"([a-z_]+): ", details)
        return caught.value.code().name, found[1] if found else details


def admitted(client: Client) -> int:
    (model,) = client.models
    return model.admitted


def new_channel(address: str) -> Any:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.aio.insecure_channel(address, options=options)


@asynccontextmanager
async def serving(package_folder: Path, **values: Any) -> AsyncIterator[Client]:
    """Serve a package over gRPC in this process, on one thread."""
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        settings = Settings(
            models=(str(package_folder),), device="cpu", threads=1, grpc_port=port, **{"max_images": 4, **values}
        )
        models = Models(settings)
        await models.load()
        client = Client(models, f"127.0.0.1:{port}")
        try:
            async with serve_grpc(models, settings, lambda: False), client.channel:
                yield client
        finally:
            models.close()


def infer_request(pixels: np.ndarray, model: str = "tiny-grey", **fields: Any) -> Any:
    """Return a request that sends uint8 (N, H, W, C) as binary data."""
    request = messages.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    return request


GREY = np.random.default_rng(7).integers(0, 256, (1, 8, 8, 1), np.uint8)
INFER = infer_request(GREY).SerializeToString()


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
