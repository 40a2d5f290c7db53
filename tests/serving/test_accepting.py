"""Workers share connections evenly, also few of them, and none waits for a worker that hangs or has died."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from serving.process import accepting
from tests.servers import Server, children, owners, running_server
from tests.waiting import eventually, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
def server(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("accepting") / "log"
    with running_server(log, str(package_folder), "--workers", "2") as running:
        yield running


def await_owners(server: Server, total: int) -> dict[int, int]:
    wait_until(lambda: len(owners(server)) == total)
    return owners(server)


def shares(server: Server, total: int) -> list[int]:
    """Return how many of so many connections each of two workers has, the fewest first."""
    counts = Counter(await_owners(server, total).values())
    return sorted(counts[worker] for worker in children(server.process.pid))


def is_answered(connection: socket.socket) -> bool:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection.recv(65536).startswith(b"HTTP/1.1 200")


@contextmanager
def stopped(worker: int) -> Iterator[None]:
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_four_connections_are_spread_over_two_workers(server: Server) -> None:
    found = []
    for _ in range(50):
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(server.connect())
            found.append(shares(server, 4))
        await_owners(server, 0)

    # A worker that still closes former connections, or that a busy machine keeps from its CPU, gets fewer.
    assert found.count([2, 2]) >= 25
    assert found.count([0, 4]) <= 1


def test_a_hundred_connections_are_spread_over_two_workers(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect())
        assert shares(server, 100)[0] >= 45
    await_owners(server, 0)


def test_the_worker_whose_connections_have_closed_gets_the_next_ones(server: Server) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(8)]
        owner = await_owners(server, 8)
        first = owner[connections[0].getsockname()[1]]
        kept = [connection for connection in connections if owner[connection.getsockname()[1]] != first]
        for connection in connections:
            if connection not in kept:
                connection.close()
        await_owners(server, len(kept))
        for _ in range(len(connections) - len(kept)):
            stack.enter_context(server.connect())

        assert shares(server, 8)[0] >= 3
    await_owners(server, 0)


def test_no_connection_waits_for_a_worker_that_hangs(server: Server) -> None:
    hangs, works = children(server.process.pid)
    with ExitStack() as stack:
        with stopped(hangs):
            started_at = time.monotonic()
            for _ in range(20):
                assert is_answered(stack.enter_context(server.connect()))
            seconds = time.monotonic() - started_at
            assert set(await_owners(server, 20).values()) == {works}

        assert seconds < 2
    await_owners(server, 0)


def test_connections_are_spread_again_once_a_killed_worker_is_replaced(server: Server) -> None:
    killed, _ = children(server.process.pid)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(server.connect())
        lost = list(await_owners(server, 4).values()).count(killed)
        os.kill(killed, signal.SIGKILL)
        server.wait_for_log(f"worker {killed} died")
        for _ in range(4):
            assert is_answered(stack.enter_context(server.connect()))
        wait_until(lambda: server.log.read_text().count("Started server process") >= 3)
        for _ in range(4):
            stack.enter_context(server.connect())

        assert shares(server, 12 - lost)[0] >= 3


@pytest.mark.parametrize(
    ("counts", "excess"), [([3, 3], 0), ([4, 3], 1), ([7, 3], 4), ([3, 7], 0), ([72, 64], 0), ([73, 64], 9)]
)
def test_an_eighth_more_connections_are_no_excess(counts: list[int], excess: int) -> None:
    of_workers = accepting.shares(2)
    for share, count in zip(of_workers, counts, strict=True):
        share.join()
        share.add(count)

    assert of_workers[0].excess_to_yield == excess


@pytest.mark.parametrize(("hangs_seconds", "accepted"), [(60.0, accepting.MAX_UNSTARTED), (0.0, 0)])
def test_a_busy_event_loop_is_given_some_connections_and_one_that_hangs_none(
    hangs_seconds: float, accepted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "HANGS_SECONDS", hangs_seconds)
    (share,) = accepting.shares(1)

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listening, ExitStack() as stack:
            listening.setblocking(False)
            acceptor = accepting.Acceptor(listening, share, asyncio.Protocol)
            try:
                for _ in range(40):
                    stack.enter_context(socket.create_connection(listening.getsockname()))
                wait_until(lambda: share.count >= accepted)  # the event loop stands still
                time.sleep(0.2)
                assert share.count == accepted
                monkeypatch.setattr(accepting, "HANGS_SECONDS", 60.0)
                await eventually(lambda: share.count >= 40)
            finally:
                await acceptor.close()

    asyncio.run(test())


def test_a_client_that_has_left_before_its_connection_starts_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    (share,) = accepting.shares(1)
    left: list[socket.socket] = []

    async def leave(_: object, accepted: socket.socket) -> None:
        left.append(accepted)
        raise OSError

    async def test() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "connect_accepted_socket", leave)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            acceptor = accepting.Acceptor(listening, share, asyncio.Protocol)
            with socket.create_connection(listening.getsockname()):
                await eventually(lambda: left and left[0].fileno() < 0)
                assert share.count == 0
            await acceptor.close()

    asyncio.run(test())


def test_after_closing_a_share_counts_nothing() -> None:
    (share,) = accepting.shares(1)

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            acceptor = accepting.Acceptor(listening, share, asyncio.Protocol)
            await acceptor.close()
            absent = share.count
            with socket.create_connection(listening.getsockname()):
                await asyncio.sleep(0.1)
            share.add(-1)
            assert share.count == absent

    asyncio.run(test())
