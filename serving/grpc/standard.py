"""gRPC's own services: health checks and reflection."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.grpc.calls import Calls
from serving.grpc.inbox import Inbox
from serving.grpc.messages import POOL, SERVICE

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_NAMES = (health.OVERALL_HEALTH, SERVICE)

for _descriptor in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
    POOL.AddSerializedFile(_descriptor.serialized_pb)


class Health:
    """The service grpc.health.v1.Health, for the server and for the protocol's service.

    Args:
        calls: admits and observes calls.
        inbox: receives their messages.
        timeout: seconds that a call may wait to be received.
    """

    def __init__(self, calls: Calls, inbox: Inbox, timeout: float) -> None:
        self._calls = calls
        self._inbox = inbox
        self._timeout = timeout
        self._status: Any = _NOT_SERVING
        self._change = asyncio.Event()  # is set when the status changes, and replaced

    def set(self, is_serving: bool) -> None:
        """Answer from now on whether requests should come here."""
        status = _SERVING if is_serving else _NOT_SERVING
        if status != self._status:
            self._status = status
            self._change.set()
            self._change = asyncio.Event()

    def handler(self) -> Any:
        """Return the handler of the service, for `grpc.aio.server`."""
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, response_serializer=serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, response_serializer=serialize),
        }
        if hasattr(health_pb2, "HealthListResponse"):  # the service has it from grpcio-health-checking 1.85 on
            serialize = health_pb2.HealthListResponse.SerializeToString
            handlers["List"] = grpc.stream_unary_rpc_method_handler(self._list, response_serializer=serialize)
        return grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers)

    async def _check(self, _: object, context: Any) -> Any:
        async def answer() -> Any:
            request = await self._receive(health_pb2.HealthCheckRequest, context)
            if request.service not in _NAMES:
                await context.abort(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse(status=self._status)

        return await self._calls.run(f"/{health.SERVICE_NAME}/Check", context, answer)

    async def _list(self, _: object, context: Any) -> Any:
        async def answer() -> Any:
            await self._receive(health_pb2.HealthListRequest, context)
            state = health_pb2.HealthCheckResponse(status=self._status)
            return health_pb2.HealthListResponse(statuses=dict.fromkeys(_NAMES, state))

        return await self._calls.run(f"/{health.SERVICE_NAME}/List", context, answer)

    async def _watch(self, _: object, context: Any) -> None:
        async def answer() -> None:
            request = await self._receive(health_pb2.HealthCheckRequest, context)
            # The library's servicer holds a lock while it writes: one client that reads nothing would stop all others.
            written = None
            while True:
                change = self._change
                status = self._status if request.service in _NAMES else _UNKNOWN
                if status != written:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    written = status
                await change.wait()

        await self._calls.run(f"/{health.SERVICE_NAME}/Watch", context, answer, is_endless=True)

    async def _receive(self, kind: Any, context: Any) -> Any:
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._inbox.receive_only(kind, context, deadline)


class Reflection:
    """The service grpc.reflection.v1alpha.ServerReflection, which describes all services.

    Args:
        calls: admits and observes calls.
        inbox: receives their messages.
        timeout: seconds that a call may wait for its messages to be received.
    """

    def __init__(self, calls: Calls, inbox: Inbox, timeout: float) -> None:
        self._calls = calls
        self._inbox = inbox
        self._timeout = timeout
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        self._servicer = reflection.aio.ReflectionServicer(names, pool=POOL)

    def handler(self) -> Any:
        """Return the handler of the service, for `grpc.aio.server`."""
        serialize = reflection_pb2.ServerReflectionResponse.SerializeToString
        info = grpc.stream_stream_rpc_method_handler(self._info, response_serializer=serialize)
        return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": info})

    async def _info(self, _: object, context: Any) -> None:
        async def answer() -> None:
            async with (
                aclosing(self._requests(context)) as requests,
                aclosing(self._servicer.ServerReflectionInfo(requests, context)) as responses,
            ):
                async for response in responses:
                    await context.write(response)

        await self._calls.run(f"/{reflection.SERVICE_NAME}/ServerReflectionInfo", context, answer, is_endless=True)

    async def _requests(self, context: Any) -> AsyncGenerator[Any, None]:
        while True:
            deadline = asyncio.get_running_loop().time() + self._timeout
            request = await self._inbox.receive_small(reflection_pb2.ServerReflectionRequest, context, deadline)
            if request is None:
                return
            yield request
