"""Limits on connections and heads, the order of answers, half-closed and draining connections, on real sockets."""

import asyncio
import gc
import hashlib
import json
import socket
import weakref

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http import protocol
from serving.http.protocol import MAX_CHUNK_OVERHEAD, MAX_HEADERS, MAX_PIPELINED, LimitedProtocol
from serving.telemetry.metrics import REJECTED
from tests.serving.protocol_server import GET, SLOW_SECONDS, Running, application, serve
from tests.serving.raw_http import statuses
from tests.waiting import eventually

SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
BODY_TO_COME = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"
GARBAGE = b"\0garbage\r\n\r\n"


def test_one_connection_too_many_gets_503_at_once_and_the_others_are_answered() -> None:
    async def test(server: Running) -> None:
        waiting = [await server.connect() for _ in range(3)]
        await eventually(lambda: len(server.state.connections) == 3)

        refused = await server.exchange(b"")

        assert statuses(refused) == [503]
        assert b"\r\nretry-after: 1\r\n" in refused
        assert b"\r\nconnection: close\r\n" in refused
        assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"
        for reader, writer in waiting:
            writer.write(GET)
            assert (await reader.readuntil(b"/plain")).startswith(b"HTTP/1.1 200")
            writer.close()
        await eventually(lambda: not server.state.connections)
        assert statuses(await server.exchange(GET, end=True)) == [200]

    serve(test, max_connections=3)


@pytest.mark.parametrize("sent", [b"", b"GET /pl", GET], ids=["silent", "half a head", "kept alive"])
def test_one_connection_too_many_takes_the_place_of_the_one_idle_longest(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: Running) -> None:
        busy_reader, busy_writer = await server.connect()
        busy_writer.write(BODY_TO_COME)
        idle_reader, idle_writer = await server.connect()
        idle_writer.write(sent)
        if sent == GET:
            await idle_reader.readuntil(b"/plain")
        await asyncio.sleep(0.1)

        assert statuses(await server.exchange(GET, end=True)) == [200]

        async with asyncio.timeout(1):
            assert await idle_reader.read() == b""
        busy_writer.write(b"23456789")
        assert (await busy_reader.readuntil(b"/body")).startswith(b"HTTP/1.1 200")

    monkeypatch.setattr(protocol, "QUIET_SECONDS", 0.05)
    serve(test, max_connections=2)


def test_connections_far_beyond_the_limit_are_not_kept_even_to_be_refused() -> None:
    async def test(server: Running) -> None:
        for _ in range(12):
            await server.connect()
        await asyncio.sleep(0.1)
        assert len(server.state.connections) <= 6

    serve(test, max_connections=3)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"X-%d: 1" % number for number in range(MAX_HEADERS - 1)], 200),
        ([b"X-%d: 1" % number for number in range(MAX_HEADERS + 1)], 431),
        ([b"a:"] * 16_000, 431),
        ([b"X: " + b"a" * 15_000], 200),
        ([b"X: " + b"a" * 17_000], 431),
        ([b"X: " + b"a" * 9_000] * 2, 431),
        ([b"X: " + b"a" * 100_000], 431),
    ],
    ids=["most", "too many", "flood", "large", "too large", "two large", "huge"],
)
def test_heads_of_too_many_or_too_large_headers_are_431(lines: list[bytes], status: int) -> None:
    async def test(server: Running) -> None:
        head = b"\r\n".join([b"GET /plain HTTP/1.1", b"Host: x", *lines])
        assert statuses(await server.exchange(head + b"\r\n\r\n", end=True)) == [status]
        if status == 431:  # before the head is complete
            assert statuses(await server.exchange(head + b"\r\n")) == [status]

    serve(test)


@pytest.mark.parametrize("end", [False, True], ids=["open", "half-closed"])
def test_pipelined_requests_are_answered_up_to_the_limit_and_the_next_is_503(end: bool) -> None:
    refusals = REJECTED.labels("overloaded")

    async def test(server: Running) -> None:
        before = refusals._value.get()
        answer = await server.exchange(SLOW + (MAX_PIPELINED + 1000) * GET, end)
        assert statuses(answer) == [200] * (1 + MAX_PIPELINED) + [503]
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"
        assert refusals._value.get() == before + 1
        await eventually(lambda: not server.state.connections)
        assert server.state.pipelined == 0

    serve(test)


def test_white_space_around_the_value_of_a_header_is_no_part_of_it() -> None:
    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        body = dict(scope["headers"])[b"x-request-id"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def test(server: Running) -> None:
        sent = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: \t my id\t \r\n\r\n"
        assert (await server.exchange(sent, end=True)).endswith(b"\r\n\r\nmy id")

    serve(test, app=answer)


@pytest.mark.parametrize("step", [7, 1000])
def test_trailers_are_not_headers(step: int) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        body = repr(scope["headers"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def test(server: Running) -> None:
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        sent = head + b"1\r\na\r\n0\r\nX-API-Key: k\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: x\r\nX-Second: 2\r\n\r\n"
        reader, writer = await server.connect()
        for start in range(0, len(sent), step):
            writer.write(sent[start : start + step])
            await asyncio.sleep(0.01)
        writer.write_eof()
        async with asyncio.timeout(10):
            answers = await reader.read()
        assert b"x-api-key" not in answers
        assert b"[(b'host', b'x'), (b'transfer-encoding', b'chunked')]" in answers
        assert b"[(b'host', b'x'), (b'x-second', b'2')]" in answers

    serve(test, app=answer)


CHUNKED = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def answer_with_digest(_: Scope, receive: Receive, send: Send) -> None:
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    body = digest.hexdigest().encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(("length", "size"), [(150_000, 1), (1_500_000, 3), (1_500_000, 70), (1_500_000, 40_000)])
def test_chunks_that_clients_send_are_taken_whatever_their_size(length: int, size: int) -> None:
    body = bytes(index % 251 for index in range(length))
    expected = hashlib.sha256(body).hexdigest().encode()

    async def test(server: Running) -> None:
        answers = await server.exchange(2 * (CHUNKED + in_chunks(body, size)), end=True)
        assert statuses(answers) == [200, 200]
        assert answers.count(expected) == 2

    serve(test, app=answer_with_digest)


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;%b\r\na\r\n" % (b"x" * 1000)], ids=["bytes", "extensions"])
def test_a_body_of_very_many_tiny_chunks_is_400(chunk: bytes) -> None:
    async def test(server: Running) -> None:
        answer = await server.exchange(CHUNKED + chunk * (2 * MAX_CHUNK_OVERHEAD // (len(chunk) - 3)))
        assert statuses(answer) == [400]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed_request"
        await eventually(lambda: not server.state.connections)

    serve(test)


def test_chunks_that_come_together_are_added_to_the_body_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding each would copy all of those before it."""
    added = []

    def on_body(protocol: HttpToolsProtocol, body: bytes) -> None:
        added.append(len(body))
        original(protocol, body)

    original = HttpToolsProtocol.on_body
    monkeypatch.setattr(HttpToolsProtocol, "on_body", on_body)

    async def test(server: Running) -> None:
        assert statuses(await server.exchange(CHUNKED + in_chunks(bytes(20_000), 1), end=True)) == [200]
        assert sum(added) == 20_000
        assert len(added) < 1000

    serve(test)


def test_pipelined_requests_of_all_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_ALL_PIPELINED", 20)

    release = asyncio.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await application(scope, receive, send)

    async def test(server: Running) -> None:
        first = asyncio.create_task(server.exchange(16 * GET, end=True))
        await eventually(lambda: server.state.pipelined == 15)
        second = asyncio.create_task(server.exchange(16 * GET, end=True))
        await eventually(lambda: server.state.pipelined == 20)
        release.set()

        assert statuses(await first) == [200] * 16
        assert statuses(await second) == [200] * 6 + [503]
        await eventually(lambda: not server.state.connections)
        assert server.state.pipelined == 0

    serve(test, app=answer)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GET + GARBAGE, [200, 400]),
        (SLOW + GARBAGE, [200, 400]),
        (SLOW + GET + GARBAGE, [200, 200, 400]),
        (SLOW + GARBAGE + b"\0" * 300_000, [200, 400]),
        (SLOW + b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200, [200, 431]),
        (SLOW + b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", [200, 400]),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + GET, [400]),
        (GARBAGE + GET, [400]),
    ],
    ids=[
        *("answered", "being answered", "two", "much", "head too large"),
        *("in the body of the next", "in its own body", "first"),
    ],
)
@pytest.mark.parametrize("end", [False, True], ids=["open", "half-closed"])
def test_what_is_not_http_is_refused_after_the_requests_before_it(sent: bytes, expected: list[int], end: bool) -> None:
    async def test(server: Running) -> None:
        assert statuses(await server.exchange(sent, end)) == expected

    serve(test)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(GET, [200]), (SLOW + GET + GET, [200] * 3), (SLOW + BODY_TO_COME, [200]), (SLOW + b"GET /pl", [200])],
    ids=["one", "pipelined", "then an incomplete body", "then an incomplete head"],
)
def test_a_half_closed_client_gets_the_answers_to_its_complete_requests(sent: bytes, expected: list[int]) -> None:
    async def test(server: Running) -> None:
        answer = await server.exchange(sent, end=True)
        assert statuses(answer) == expected
        await eventually(lambda: not server.state.connections)

    serve(test)


def test_the_work_for_a_client_that_has_closed_its_connection_is_given_up() -> None:
    """It ends like that of a half-closed client, but whoever sends to it is reset."""
    gone = asyncio.Event()

    async def wait_for_disconnect(_: Scope, receive: Receive, __: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async def test(server: Running) -> None:
        _, writer = await server.connect()
        writer.write(GET)
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(5):
            await gone.wait()

    serve(test, app=wait_for_disconnect)


def test_connections_close_after_their_next_answers_while_the_server_drains() -> None:
    async def test(server: Running) -> None:
        idle_reader, idle_writer = await server.connect()
        idle_writer.write(GET)
        await idle_reader.readuntil(b"/plain")
        busy = asyncio.create_task(server.exchange(SLOW))
        await asyncio.sleep(SLOW_SECONDS / 3)

        server.state.drain()
        idle_writer.write(GET)
        answers = [await busy, await idle_reader.read(), await server.exchange(GET), await server.exchange(SLOW + GET)]

        assert [statuses(answer) for answer in answers] == [[200], [200], [200], [200, 200]]
        assert [answer.count(b"connection: close") for answer in answers] == [1] * 4

    serve(test)


@pytest.mark.parametrize("is_stopping", [False, True], ids=["draining", "stopping"])
def test_an_answer_that_has_begun_before_the_server_stops_keeps_its_promise_of_another(is_stopping: bool) -> None:
    begun, signalled = asyncio.Event(), asyncio.Event()

    async def application(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        begun.set()
        await signalled.wait()
        await send({"type": "http.response.body", "body": b"ok"})

    async def test(server: Running) -> None:
        reader, writer = await server.connect()
        writer.write(GET)
        await begun.wait()

        server.state.drain()
        if is_stopping:
            for connection in list(server.state.connections):
                connection.shutdown()
        signalled.set()
        first = await reader.readuntil(b"ok")
        writer.write(GET)
        second = await reader.read()

        assert [statuses(answer) for answer in (first, second)] == [[200], [200]]
        assert [answer.count(b"connection: close") for answer in (first, second)] == [0, 1]

    serve(test, app=application)


def test_stopping_closes_idle_connections_only_when_no_request_is_on_its_way() -> None:
    async def test(server: Running) -> None:
        late_reader, late_writer = await server.connect()
        idle_reader, _ = await server.connect()
        await eventually(lambda: len(server.state.connections) == 2)
        started = asyncio.get_running_loop().time()

        server.state.drain()
        for connection in list(server.state.connections):
            connection.shutdown()
        await asyncio.sleep(protocol.QUIET_SECONDS / 2)
        late_writer.write(GET)

        assert statuses(await late_reader.read()) == [200]
        assert await idle_reader.read() == b""
        assert asyncio.get_running_loop().time() - started < protocol.QUIET_SECONDS + 2

    serve(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\na: b\r\n",
        BODY_TO_COME,
        SLOW + 10 * GET,
        SLOW + BODY_TO_COME,
        SLOW + GARBAGE,
        GARBAGE,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 200,
        BODY_TO_COME.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost"),
    ],
    ids=["nothing", "head", "body", "pipelined", "pipelined body", "answer and garbage", "garbage", "431", "upgrade"],
)
def test_a_lost_connection_is_freed_without_the_garbage_collector(sent: bytes) -> None:
    async def test(server: Running) -> None:
        async def lose() -> weakref.ref[LimitedProtocol]:
            connection = socket.create_connection(server.address)
            await eventually(lambda: bool(server.state.connections))
            lost = weakref.ref(next(iter(server.state.connections)))
            connection.sendall(sent)
            await asyncio.sleep(0.03)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
            connection.close()
            await eventually(lambda: not server.state.connections and not server.state.pipelined)
            await asyncio.sleep(1.5 * SLOW_SECONDS)
            return lost

        await lose()
        gc.collect()
        gc.disable()
        try:
            assert (await lose())() is None
        finally:
            gc.enable()

    serve(test)


def test_requests_that_wait_on_a_lost_connection_count_no_longer() -> None:
    async def leave_unanswered(_: Scope, receive: Receive, __: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def test(server: Running) -> None:
        _, writer = await server.connect()
        writer.write(10 * GET)
        await eventually(lambda: server.state.pipelined == 9)
        writer.transport.abort()
        await eventually(lambda: not server.state.connections)
        assert server.state.pipelined == 0

    serve(test, app=leave_unanswered)


def test_a_client_that_paused_while_it_read_an_answer_stays_connected() -> None:
    size = 20_000_000  # more than the system's buffers of a connection hold

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def test(server: Running) -> None:
        reader, writer = await server.connect()
        writer.write(GET)
        await eventually(lambda: any(connection._send_timer for connection in server.state.connections))
        (connection,) = server.state.connections
        timer = connection._send_timer
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(size)
        await eventually(lambda: connection._send_timer is None)
        assert timer.cancelled()

    serve(test, app=answer)
