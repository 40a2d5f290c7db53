"""Request bodies: where they are parsed, and how long they are held."""

import asyncio
import gc
import gzip
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from serving.app import create_app
from serving.engine.threads import Threads
from serving.http.body import PARSED_AT_ONCE, parse
from serving.settings import Settings


def test_large_body_is_parsed_in_a_thread_before_all_waiting_images_are_decoded() -> None:
    order: list[tuple[str, str]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread().name))

    async def test() -> None:
        threads = Threads(1)
        images = threads.share()
        await threads.acquire()
        decoding = [asyncio.create_task(images.run(note, "decode")) for _ in range(5)]
        await asyncio.sleep(0)
        parsing = asyncio.create_task(parse(threads, lambda _: note("parse"), bytes(PARSED_AT_ONCE + 1)))
        await asyncio.sleep(0)
        threads.release()
        await asyncio.gather(*decoding, parsing)
        threads.close()

    asyncio.run(test())

    assert ("parse", "classify_0") in order[:2]


def test_small_body_is_parsed_while_all_threads_are_busy() -> None:
    async def test() -> int:
        threads = Threads(1)
        await threads.acquire()
        try:
            return await parse(threads, len, bytes(PARSED_AT_ONCE))
        finally:
            threads.release()
            threads.close()

    assert asyncio.run(test()) == PARSED_AT_ONCE


SIZE = 1_000_000
FORM = b"--b\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\n" + bytes(SIZE)


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        ("image/png", bytes(SIZE), ""),
        ("image/png", gzip.compress(bytes(SIZE)), "gzip"),
        ("image/png", bytes(SIZE), "gzip"),
        ("multipart/form-data; boundary=b", FORM + b"\r\n--b--", ""),
        ("multipart/form-data; boundary=b", FORM, ""),
        ("application/json", b'{"images": ["' + b"A" * SIZE + b'"]}', ""),
        ("application/json", b'{"images": ["' + b"!" * SIZE + b'"]}', ""),
        ("application/json", b"[" + b" " * SIZE, ""),
    ],
    ids=["image", "gzip", "no gzip", "form", "malformed form", "JSON", "no base64", "malformed JSON"],
)
def test_rejected_body_is_freed_without_the_garbage_collector(
    package_folder: Path, content_type: str, body: bytes, encoding: str
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-encoding", encoding.encode())]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}

    async def post(app: Any) -> int:
        statuses: list[int] = []
        chunks = [bytes(bytearray(body))]  # a copy, which only the application holds

        async def receive() -> dict[str, Any]:
            if chunks:
                return {"type": "http.request", "body": chunks.pop()}
            return await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        await app(dict(scope), receive, send)
        return statuses[0]

    async def test() -> None:
        app = create_app(Settings(models=(str(package_folder),), device="cpu", threads=1))
        async with app.router.lifespan_context(app):
            assert 400 <= await post(app) < 500
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                await post(app)
                await asyncio.sleep(0.01)
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                gc.enable()
            assert held < SIZE / 4

    asyncio.run(test())
