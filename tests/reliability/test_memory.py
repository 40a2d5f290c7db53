"""Memory of a worker and its decoding processes, whatever is sent."""

import asyncio
import gzip
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from benchmarks.serving.load import Answer, Client, files_request, post, statuses
from tests.images.image_makers import gif_of_comments, padded_jpeg
from tests.reliability.conftest import IS_FULL, NEEDS_PROC, Report
from tests.reliability.memory import megabytes, wait_until_below, watched
from tests.servers import running_server

pytestmark = [pytest.mark.slow, NEEDS_PROC]

# As docs/reliability.md promises.
MAX_MEGABYTES, MAX_AFTERWARDS, SECONDS_AFTERWARDS = 600, 300, 10

COUNT = 50
# In each format, about the largest image that the server decodes.
FORMATS: dict[str, tuple[str, tuple[int, int], str, dict[str, object]]] = {
    "one-row-png": ("RGBA", (7_500_000, 1), "PNG", {}),
    "lossless-webp": ("RGBA", (3_600, 3_600), "WEBP", {"lossless": True, "method": 0}),
    "transparent-png": ("RGBA", (4_200, 4_200), "PNG", {}),
    "png": ("RGB", (6_500, 6_500), "PNG", {}),
    "progressive-jpeg": ("RGB", (6_000, 6_000), "JPEG", {"progressive": True, "subsampling": 0}),
    "large-jpeg": ("RGB", (6_499, 6_500), "JPEG", {}),
}
MIB = 2**20


def largest(name: str) -> bytes:
    mode, size, file_format, options = FORMATS[name]
    file = BytesIO()
    PIL.Image.new(mode, size).save(file, file_format, **options)
    return post("/classify", file.getvalue(), "Content-Type: image/png")


def jpeg_of_segments(size: int) -> bytes:
    image = padded_jpeg(0)
    return image[:2] + b"\xff\xe3\0\2" * (size // 4) + image[2:]


def gzipped(body: bytes, content_type: str) -> bytes:
    return post("/classify", gzip.compress(body, 1), f"Content-Type: {content_type}", "Content-Encoding: gzip")


def false_boundaries(size: int) -> bytes:
    start = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    return start + b"\r\n--bx" * (size // 6)


# Requests that cost much; each is sent by many clients at once.
REQUESTS: dict[str, Callable[[], bytes]] = {
    **{name: lambda name=name: largest(name) for name in FORMATS},  # type: ignore[misc]
    "gif-of-comments": lambda: gzipped(gif_of_comments(31 * MIB), "image/gif"),
    "jpeg-of-segments": lambda: gzipped(jpeg_of_segments(31 * MIB), "image/jpeg"),
    "padded-jpeg": lambda: gzipped(padded_jpeg(31 * MIB), "image/jpeg"),
    "false-boundaries": lambda: gzipped(false_boundaries(31 * MIB), "multipart/form-data; boundary=b"),
    "many-files": lambda: files_request([b"x" * (MIB // 2)] * 60),
    "numbers": lambda: post("/v2/models/digits-pde/infer", b'{"inputs":[' + b"0," * (10 * MIB) + b"0]}"),
    "base64": lambda: post("/classify", b'{"images":["' + b"A" * (30 * MIB) + b'"]}', "Content-Type: application/json"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_memory_stays_within_the_promise_when_many_costly_requests_come_at_once(
    tmp_path: Path, report: Report, name: str
) -> None:
    request = REQUESTS[name]()

    async def attack(port: int) -> list[Answer]:
        clients = [Client(port) for _ in range(COUNT)]
        answers = await asyncio.gather(*(client.send(request) for client in clients))
        for client in clients:
            await client.close()
        return list(answers)

    # This model pads images and scales all of them, which takes more memory for a single row than cropping would.
    timeout = "10" if IS_FULL else "3"  # they are decoded one by one
    with running_server(tmp_path / "log", "digits-pde", "--threads", "4", "--request-timeout", timeout) as server:
        before = megabytes(server.process.pid)
        with watched(server.process.pid) as peak:
            answers = asyncio.run(attack(server.port))
        after = wait_until_below(server.process.pid, MAX_AFTERWARDS, SECONDS_AFTERWARDS)

    counts = sorted(statuses(answers).items())
    found = ", ".join(f"{count} times {status or 'no answer'}" for status, count in counts)
    report(
        f"{COUNT} requests of {len(request) / 1000:.0f} kB at once: {name}",
        f"{found}; {before} MB before, at most {peak.megabytes} MB, {after} MB after",
    )
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
