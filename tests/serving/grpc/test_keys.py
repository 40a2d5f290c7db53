"""What a key opens, and what is open without one: probes and the description of the services."""

import asyncio
from pathlib import Path

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from serving.grpc import messages
from tests.serving.grpc.conftest import HEALTH, INFER, REFLECTION, Client, serving


async def described(client: Client) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    response = await client.channel.stream_unary(REFLECTION)([request.SerializeToString()])
    services = reflection_pb2.ServerReflectionResponse.FromString(response).list_services_response.service
    return [service.name for service in services]


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
