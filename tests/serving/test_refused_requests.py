"""Requests that are refused before the application: their headers, and how they are counted, timed and logged."""

import asyncio
import logging
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from serving.http.browser_headers import EXPOSED
from serving.http.protocol import MAX_HEADERS
from serving.http.raw_answers import TOO_MANY, RawAnswer
from serving.middleware.security import SecurityHeaders
from serving.telemetry.logs import request_id
from tests.serving.protocol_server import GET, Running, application, serve
from tests.serving.raw_http import statuses
from tests.waiting import eventually

FULL = replace(TOO_MANY, route="/full", method="POST", path="/full", delay=0.1)


def refuse_full(_: bytes, path: str, __: bytes) -> RawAnswer | None:
    return FULL if path == "/full" else None


def test_a_refused_request_reaches_neither_the_application_nor_the_memory() -> None:
    seen = []

    def admit(method: bytes, path: str, query: bytes) -> RawAnswer | None:
        seen.append((method, path, query))
        return FULL if path == "/full" else None

    async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] != "/full"
        await application(scope, receive, send)

    async def test(server: Running) -> None:
        head = b"POST /full?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        started = asyncio.get_running_loop().time()
        whole, part = await asyncio.gather(
            server.exchange(head % 3 + b"abc" + GET), server.exchange(head % 10**9 + bytes(200_000))
        )
        assert statuses(whole) == statuses(part) == [503]
        assert asyncio.get_running_loop().time() - started > 0.09  # uvloop counts milliseconds
        assert statuses(await server.exchange(GET, end=True)) == [200]
        assert seen[0] == (b"POST", "/full", b"a=b")

    serve(test, app=unreachable, admission=admit)


def headers_of(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_what_is_not_http_is_not_logged_and_leaves_its_id_to_no_other_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = []

    async def test(server: Running) -> None:
        two_hosts = GET[:-2] + b"Host: y\r\nX-Request-Id: my-id\r\n\r\n"
        for sent in (two_hosts, b"\x16\x03\x01 garbage\r\n\r\n", GET):
            await server.exchange(sent, end=True)
        await eventually(lambda: len(ids) == 3)

    serve(test, closed=lambda: ids.append(request_id.get()))
    assert ids == [None, None, None]
    assert caplog.records == []


REFUSED = {
    b"POST /full HTTP/1.1\r\nHost: x\r\n%b\r\n": ("/full", "503", "overloaded"),
    b"GET / HTTP/1.1\r\n%bHost: x\r\nNot a header\r\n\r\n": ("other", "400", "malformed_request"),
    b"GET / HTTP/1.1\r\n%b" + b"a: b\r\n" * MAX_HEADERS + b"\r\n": ("other", "431", "headers_too_large"),
}


@pytest.mark.parametrize("request_", REFUSED, ids=[status for _, status, _ in REFUSED.values()])
@pytest.mark.parametrize("origins", [("https://example.org",), ("*",)])
def test_a_request_that_is_refused_gets_the_headers_of_every_answer(request_: bytes, origins: tuple[str, ...]) -> None:
    app = SecurityHeaders(CORSMiddleware(application, allow_origins=origins, expose_headers=EXPOSED))
    origin = b"Origin: https://example.org\r\n"

    async def test(server: Running) -> None:
        answered = headers_of(await server.exchange(GET[:-2] + origin + b"\r\n", end=True))
        refused = headers_of(await server.exchange(request_ % (origin + b"X-Request-Id: my-id\r\n")))

        for name in ("content-length", "date", "server"):
            answered.pop(name, None)
        assert answered["access-control-allow-origin"] == origins[0]
        assert answered.items() <= refused.items()
        assert refused["x-request-id"] == "my-id"

    serve(test, app=app, admission=refuse_full, origins=origins)


def test_a_page_of_another_origin_cannot_read_why_a_request_was_refused() -> None:
    async def test(server: Running) -> None:
        for request in REFUSED:
            refused = headers_of(await server.exchange(request % b"Origin: https://example.org\r\n"))
            assert "access-control-allow-origin" not in refused

    serve(test, admission=refuse_full, origins=("https://other.example",))


def recorded(route: str, status: str, reason: str) -> tuple[float, ...]:
    samples = (
        ("pdeinfer_requests_total", {"route": route, "status": status}),
        ("pdeinfer_rejected_requests_total", {"reason": reason}),
        ("pdeinfer_request_seconds_count", {"route": route}),
    )
    return tuple(REGISTRY.get_sample_value(*sample) or 0 for sample in samples)


@pytest.mark.parametrize(("request_", "expected"), REFUSED.items(), ids=[status for _, status, _ in REFUSED.values()])
def test_a_request_that_is_refused_is_counted_timed_and_logged(
    request_: bytes, expected: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.access")
    before = recorded(*expected)

    async def test(server: Running) -> None:
        await server.exchange(request_ % b"X-Request-Id: my-id\r\n")

    serve(test, admission=refuse_full, access_log=True)

    assert recorded(*expected) == tuple(value + 1 for value in before)
    (record,) = [record for record in caplog.records if record.name == "serving.access"]
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["status"], fields["client"]) == (expected[1], "127.0.0.1")
    if expected[0] == "/full":
        assert (fields["method"], fields["path"]) == ("POST", "/full")
        assert fields["seconds"] >= 0.09


def test_a_request_whose_body_is_malformed_is_recorded_by_the_application_alone() -> None:
    expected = ("other", "400", "malformed_request")
    before = recorded(*expected)

    async def test(server: Running) -> None:
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert statuses(await server.exchange(head + b"no size\r\n")) == [400]

    serve(test)

    counted, rejected, timed = (after - former for after, former in zip(recorded(*expected), before, strict=True))
    assert (counted, rejected, timed) == (0, 1, 0)
