"""Load for a running server: prepared HTTP/1.1 requests on connections that are kept, timed from when they were due."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

LOST = 0  # the status of a request whose connection broke before it was answered


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes:
        status: of HTTP, or LOST.
        due: when it should have been sent; seconds: how long its answer took from then.
        port: of the client's end of the connection.
    """

    status: int
    due: float
    seconds: float
    body: bytes = field(repr=False)
    port: int


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def percentile(answers: Sequence[Answer], percent: float, status: int = 200) -> float:
    """Return seconds: the percentile of the answers with a status."""
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


def files_request(files: Sequence[bytes]) -> bytes:
    """Return a request for /classify with the files of a form."""
    part = b'--boundary\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n%s\r\n'
    body = b"".join(part % (number, content) for number, content in enumerate(files)) + b"--boundary--\r\n"
    return post("/classify", body, "Content-Type: multipart/form-data; boundary=boundary")


class Client:
    """One connection at a time, made again when it breaks."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, due: float | None = None) -> Answer:
        due = time.monotonic() if due is None else due
        port, status, body = 0, LOST, b""
        try:
            if self._streams is not None and self._streams[0].at_eof():  # the server has closed it, idle, meanwhile
                await self.close()
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._server)
            reader, writer = self._streams
            port = writer.get_extra_info("sockname")[1]
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            status = int(head.split()[1])
            if b"connection: close" in head:
                await self.close()
        except (OSError, asyncio.IncompleteReadError):
            await self.close()
        return Answer(status, due, time.monotonic() - due, body, port)

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> list[Answer]:
    """Let each client send one request after the other, without a pause."""
    answers: list[Answer] = []
    end = time.monotonic() + seconds

    async def run(number: int) -> None:
        client = Client(port)
        while time.monotonic() < end:
            answer = await client.send(requests[number % len(requests)])
            answers.append(answer)
            number += 1
            if answer.status == LOST:
                await asyncio.sleep(0.01)
        await client.close()

    await asyncio.gather(*(run(number) for number in range(clients)))
    return answers


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> list[Answer]:
    """Send `rate` requests per second, answered or not the ones before, each on a connection that is free."""
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
