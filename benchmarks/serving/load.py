"""Generates load: prepared HTTP/1.1 requests on persistent connections, timed from when they were due."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

LOST = 0  # the status of a request whose connection broke before it was answered, or that was not answered
PATIENCE = 10.0  # seconds after the end of the load


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, or its loss.

    Attributes:
        status: of HTTP, or LOST.
        due: when it should have been sent; seconds: how long its answer took from then.
        port: of the client's end of the connection.
        request: what was sent.
    """

    status: int
    due: float
    seconds: float
    body: bytes = field(repr=False)
    port: int
    request: bytes = field(repr=False)


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def percentile(answers: Sequence[Answer], percent: float, status: int = 200) -> float:
    """Return a percentile of the seconds until an answer; lost requests do not count."""
    return float(np.percentile([answer.seconds for answer in answers if answer.status == status], percent))


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def pixels_request(model: str, pixels: np.ndarray) -> bytes:
    """Return a V2 request that sends uint8 pixels (N, H, W, C) as binary data."""
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(pixels.shape),
        "parameters": {"binary_data_size": pixels.size},
    }
    text = json.dumps({"inputs": [tensor]}).encode()
    return post(f"/v2/models/{model}/infer", text + pixels.tobytes(), f"Inference-Header-Content-Length: {len(text)}")


def files_request(files: Sequence[bytes], path: str = "/classify") -> bytes:
    """Return a request with the files of a form."""
    part = b'--boundary\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n%s\r\n'
    body = b"".join(part % (number, content) for number, content in enumerate(files)) + b"--boundary--\r\n"
    return post(path, body, "Content-Type: multipart/form-data; boundary=boundary")


class _Connection(asyncio.Protocol):
    """A connection with at most one request in flight."""

    def __init__(self) -> None:
        self.is_open = True
        self.port = 0
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def exchange(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; return a future of the status and the body, which raises ConnectionError if it breaks."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self._answer is None or self._answer.done():
            return
        head = head.lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not length.isdigit():
            self._answer.set_exception(ConnectionError(f"an answer without a Content-Length: {head.decode()}"))
        elif len(body) == int(length):
            self._received = b""
            self._answer.set_result((int(head.split(None, 2)[1]), body))
            if b"connection: close" in head:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed before the answer was complete"))

    def close(self) -> None:
        self.is_open = False
        self.transport.abort()  # a server that refused a request does not read the rest of it


class Client:
    """A client with one connection, which it renews when it breaks."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._connection: _Connection | None = None

    async def send(self, request: bytes, due: float | None = None) -> Answer:
        due = time.monotonic() if due is None else due
        port, status, body = 0, LOST, b""
        try:
            if self._connection is None or not self._connection.is_open:  # the server may close one that is idle
                loop = asyncio.get_running_loop()
                _, self._connection = await loop.create_connection(_Connection, "127.0.0.1", self._server)
            port = self._connection.port
            status, body = await self._connection.exchange(request)
        except OSError:
            await self.close()
        return Answer(status, due, time.monotonic() - due, body, port, request)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> list[Answer]:
    """Let each client send one request after the other without a pause; late answers count as lost."""
    answers: list[Answer] = []
    end = time.monotonic() + seconds

    async def run(number: int) -> None:
        client = Client(port)
        request, sent = b"", 0.0
        try:
            while (sent := time.monotonic()) < end:
                request = requests[number % len(requests)]
                answer = await client.send(request)
                answers.append(answer)
                number += 1
                if answer.status == LOST:
                    await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            answers.append(Answer(LOST, sent, time.monotonic() - sent, b"", 0, request))
        await client.close()

    _, waiting = await asyncio.wait(
        [asyncio.create_task(run(number)) for number in range(clients)], timeout=seconds + PATIENCE
    )
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting)
    return answers


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> list[Answer]:
    """Send `rate` requests per second, each on a free connection, whether or not earlier ones were answered."""
    free: list[Client] = []
    start = time.monotonic()

    async def run(number: int) -> Answer:
        due = start + number / rate
        await asyncio.sleep(due - time.monotonic())
        client = free.pop() if free else Client(port)
        answer = await client.send(requests[number % len(requests)], due)
        free.append(client)
        return answer

    answers = await asyncio.gather(*(run(number) for number in range(int(rate * seconds))))
    for client in free:
        await client.close()
    return answers
