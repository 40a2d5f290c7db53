"""Where request bodies are parsed."""

import asyncio
import threading

from serving.engine.threads import Threads
from serving.http.body import PARSED_AT_ONCE, parse


def test_large_body_is_parsed_in_a_thread_before_waiting_images_are_decoded() -> None:
    order: list[tuple[str, str]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread().name))

    async def test() -> None:
        threads = Threads(1)
        await threads.acquire()
        decoding = asyncio.create_task(threads.run(note, "decode"))
        await asyncio.sleep(0)
        parsing = asyncio.create_task(parse(threads, lambda _: note("parse"), bytes(PARSED_AT_ONCE + 1)))
        await asyncio.sleep(0)
        threads.release()
        await asyncio.gather(decoding, parsing)
        threads.close()

    asyncio.run(test())

    assert order == [("parse", "classify_0"), ("decode", "classify_0")]


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
