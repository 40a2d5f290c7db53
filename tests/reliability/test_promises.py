"""Promises that hold whatever is sent: the event loop is not blocked, SIGTERM ends in time, no model starves."""

import asyncio
import http.client
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.load import (
    LOST,
    Answer,
    Client,
    closed_loop,
    files_request,
    percentile,
    pixels_request,
    statuses,
)
from tests.images.image_makers import as_png
from tests.reliability.conftest import IS_FULL, NEEDS_PROC, Report, random_pixels, write_slow_package
from tests.reliability.costly import REQUESTS, clients
from tests.servers import running_server

pytestmark = [pytest.mark.slow, NEEDS_PROC]

SECONDS = 10 if IS_FULL else 4
EVERY_SECONDS = 0.02
COSTLY = ["large-jpeg", "padded-jpeg", "gzipped-jpeg-of-segments", "false-boundaries", "many-files", "numbers"]
DECODED = COSTLY[:3]


@contextmanager
def probed(port: int) -> Iterator[list[float]]:
    """Ask /healthz again and again on one connection until the context ends; yield the seconds that each took."""
    seconds: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not is_over.wait(EVERY_SECONDS):
            started = time.perf_counter()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
            seconds.append(time.perf_counter() - started)
        connection.close()

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield seconds
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("name", COSTLY)
def test_the_event_loop_answers_while_costly_requests_are_worked_on(tmp_path: Path, report: Report, name: str) -> None:
    request = REQUESTS[name]()
    options = ("--threads", "2", "--request-timeout", "3")
    with running_server(tmp_path / "log", "digits-pde", *options) as server, probed(server.port) as seconds:
        answers = asyncio.run(closed_loop(server.port, [request], clients(request, 4), SECONDS))

    p99, longest = np.percentile(seconds, 99) * 1e3, max(seconds) * 1e3
    report(
        f"{len(answers)} requests in {SECONDS} s: {name}",
        f"`/healthz` answered {len(seconds)} times: p99 {p99:.0f} ms, at most {longest:.0f} ms",
    )
    assert statuses(answers).keys() - {LOST, 503}
    assert p99 < 100
    assert longest < 1000  # of a machine that others use too


@pytest.mark.parametrize("name", COSTLY)
def test_sigterm_ends_the_server_in_time_whatever_it_works_on(tmp_path: Path, report: Report, name: str) -> None:
    request = REQUESTS[name]()
    options = ("--threads", "2", "--drain-seconds", "0", "--shutdown-timeout", "2")
    with running_server(tmp_path / "log", "digits-pde", *options) as server:

        async def attack() -> tuple[float, int]:
            attackers = [Client(server.port) for _ in range(clients(request, 8))]
            sending = [asyncio.create_task(client.send(request)) for client in attackers]
            await asyncio.sleep(1)
            working = sum(not task.done() for task in sending)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 60) == 0
            ended = time.monotonic() - started
            await asyncio.wait(sending)
            for client in attackers:
                await client.close()
            return ended, working

        seconds, working = asyncio.run(attack())
        report(f"SIGTERM with {working} requests in work: {name}", f"ended after {seconds:.1f} s, of 3 s promised")
        assert working or name not in DECODED
        assert seconds < 3
        assert "Traceback" not in server.log.read_text()


def test_an_idle_model_answers_while_two_others_are_busy(tmp_path: Path, report: Report) -> None:
    busy = [str(write_slow_package(tmp_path / name)) for name in ("busy-1", "busy-2")]
    load = [pixels_request(name, random_pixels(8)) for name in ("busy-1", "busy-2")]
    image = files_request([as_png(random_pixels(1)[0])])

    async def run(port: int) -> tuple[list[Answer], list[Answer]]:
        working = asyncio.create_task(closed_loop(port, load, 16, SECONDS))
        await asyncio.sleep(1)
        idle = await closed_loop(port, [image], 1, SECONDS - 1)
        return await working, idle

    with running_server(tmp_path / "log", "digits-pde", *busy, "--threads", "2") as server:
        working, idle = asyncio.run(run(server.port))

    p99 = percentile(idle, 99)
    report(
        f"Two models busy ({statuses(working)[200]} requests of 8 images), one client of a third",
        f"{statuses(idle)[200]} of {len(idle)} images classified, p99 {p99 * 1e3:.0f} ms",
    )
    assert set(statuses(idle)) == {200}
    assert p99 < 5
