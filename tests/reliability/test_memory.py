"""Memory of a worker and its decoding processes, whatever is sent."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.serving.load import LOST, Answer, Client, post, statuses
from tests.reliability.conftest import IS_FULL, NEEDS_PROC, Report
from tests.reliability.costly import REQUESTS, clients
from tests.reliability.memory import megabytes, wait_until_below, watched
from tests.servers import running_server

pytestmark = [pytest.mark.slow, NEEDS_PROC]

# As docs/reliability.md promises.
MAX_MEGABYTES, MAX_AFTERWARDS, SECONDS_AFTERWARDS = 600, 300, 10

COUNT = 50


@pytest.mark.parametrize("name", REQUESTS)
def test_memory_stays_within_the_promise_when_many_costly_requests_come_at_once(
    tmp_path: Path, report: Report, name: str
) -> None:
    request = REQUESTS[name]()
    count = clients(request, COUNT)

    async def attack(port: int) -> list[Answer]:
        attackers = [Client(port) for _ in range(count)]
        answers = await asyncio.gather(*(client.send(request) for client in attackers))
        for client in attackers:
            await client.close()
        return list(answers)

    # This model pads images and scales all of them, which takes more memory for a single row than cropping would.
    timeout = "10" if IS_FULL else "3"  # they are decoded one by one
    with running_server(tmp_path / "log", "digits-pde", "--threads", "4", "--request-timeout", timeout) as server:
        before = megabytes(server.process.pid)
        with watched(server.process.pid) as peak:
            answers = asyncio.run(attack(server.port))
        after = wait_until_below(server.process.pid, MAX_AFTERWARDS, SECONDS_AFTERWARDS)

    counts = statuses(answers)
    found = ", ".join(f"{times} times {status or 'no answer'}" for status, times in sorted(counts.items()))
    report(
        f"{count} requests of {len(request) / 1000:.0f} kB at once: {name}",
        f"{found}; {before} MB before, at most {peak.megabytes} MB, {after} MB after",
    )
    assert counts.keys() - {LOST, 503}, "all were refused: nothing costly was done"
    assert before < peak.megabytes < MAX_MEGABYTES
    assert after < MAX_AFTERWARDS


UNFINISHED = {
    "heads": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 16_000,
    "bodies": post("/classify", bytes(8_000_000), "Content-Type: image/png")[:-1],
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_memory_stays_within_the_promise_when_many_clients_send_half_a_request(
    tmp_path: Path, report: Report, name: str
) -> None:
    with running_server(tmp_path / "log", "digits-pde", "--threads", "4") as server:
        before = megabytes(server.process.pid)
        with watched(server.process.pid) as peak:
            connections = []
            for _ in range(600):
                connection = server.connect()
                connection.settimeout(0.2)
                with suppress(OSError):  # refused, or not read
                    connection.sendall(UNFINISHED[name])
                connections.append(connection)
            time.sleep(1)
            for connection in connections:
                connection.close()
        after = wait_until_below(server.process.pid, MAX_AFTERWARDS, SECONDS_AFTERWARDS)

    report(
        f"600 connections with unfinished {name}",
        f"{before} MB before, at most {peak.megabytes} MB, {after} MB after",
    )
    assert before <= peak.megabytes < MAX_MEGABYTES
    assert after < MAX_AFTERWARDS
