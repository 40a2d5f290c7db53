"""Errors, request ids, counts, logs and health."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import REGISTRY

from serving.engine.served_model import ServedModel
from serving.errors import RequestError
from serving.grpc import messages
from serving.grpc.calls import Calls
from serving.interface.keys import Keys
from tests.serving.grpc.conftest import GREY, HEALTH, INFER, METHOD, Client, infer_request, serving


def status_of_infer(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the code and the details of a call of ModelInfer in which the model raises an error."""

    async def fail(*_: object) -> None:
        raise error

    async def call() -> grpc.aio.AioRpcError:
        async with serving(folder) as client:
            monkeypatch.setattr(ServedModel, "infer", fail)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("ModelInfer", INFER)
            return caught.value

    refusal = asyncio.run(call())
    return refusal.code(), str(refusal.details())


def test_an_unexpected_error_is_logged_and_not_told(
    package_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code, details = status_of_infer(package_folder, monkeypatch, RuntimeError(f"secret of {package_folder}"))
    assert code == grpc.StatusCode.INTERNAL
    assert details == "internal_error: the server failed to answer; its log has the details"
    assert "secret of" in caplog.text


def test_a_long_message_of_an_error_is_cut_as_it_is_sent_in_a_header(
    package_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, details = status_of_infer(package_folder, monkeypatch, RequestError("invalid_image", "x" * 100_000))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "invalid_image: ".ljust(1024, "x")


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


class Context:
    """What `Calls` needs of a call, whose deadline is so many seconds away."""

    def __init__(self, remaining: float | None) -> None:
        self.remaining = remaining
        self.status: grpc.StatusCode | None = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def time_remaining(self) -> float | None:
        return self.remaining

    def code(self) -> grpc.StatusCode | None:
        return self.status

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = code
        raise grpc.aio.AbortError(details)


@pytest.mark.parametrize(
    ("timeout", "remaining", "status"),
    [
        (0.2, 0.0, "DEADLINE_EXCEEDED"),
        (10.1, 0.1, "DEADLINE_EXCEEDED"),  # the client's deadline was 10.003, which gRPC rounds
        (10.1, 5.0, "CANCELLED"),
        (None, None, "CANCELLED"),
    ],
)
def test_a_call_whose_client_gives_up_at_its_deadline_is_counted_as_such(
    timeout: float | None, remaining: float | None, status: str
) -> None:
    def counts() -> tuple[float, float]:
        reason = {"reason": "deadline_exceeded"}
        return count("/method", status), REGISTRY.get_sample_value("pdeinfer_rejected_requests_total", reason) or 0

    async def test() -> None:
        context, has_begun = Context(timeout), asyncio.Event()

        async def answer() -> None:
            has_begun.set()
            await asyncio.Event().wait()

        call = asyncio.create_task(Calls(Keys({}), access_log=False, max_calls=1).run("/method", context, answer))
        await has_begun.wait()
        context.remaining = remaining
        call.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AbortError):
            await call

    before = counts()
    asyncio.run(test())
    assert counts() == (before[0] + 1, before[1] + (status == "DEADLINE_EXCEEDED"))


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


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListResponse"), reason="needs grpcio-health-checking 1.85")
def test_health_of_all_services_is_listed(package_folder: Path) -> None:
    async def states(client: Client) -> dict[str, int]:
        answer = health_pb2.HealthListResponse.FromString(await client.call(HEALTH + "List"))
        return {name: state.status for name, state in answer.statuses.items()}

    async def test() -> None:
        async with serving(package_folder) as client:
            serving_state, not_serving = (
                health_pb2.HealthCheckResponse.SERVING,
                health_pb2.HealthCheckResponse.NOT_SERVING,
            )
            assert await states(client) == dict.fromkeys(("", messages.SERVICE), serving_state)
            watch = client.channel.unary_stream(HEALTH + "Watch")(b"")
            await watch.read()
            client.models.draining = True
            await watch.read()
            assert await states(client) == dict.fromkeys(("", messages.SERVICE), not_serving)

    asyncio.run(test())


def test_health_of_an_unknown_service_is_not_found(package_folder: Path) -> None:
    async def test() -> None:
        async with serving(package_folder) as client:
            request = health_pb2.HealthCheckRequest(service="other").SerializeToString()
            assert (await client.refusal(HEALTH + "Check", request))[0] == "NOT_FOUND"
            watch = client.channel.unary_stream(HEALTH + "Watch")(request)
            state = health_pb2.HealthCheckResponse.FromString(await watch.read()).status
            assert state == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

    asyncio.run(test())
