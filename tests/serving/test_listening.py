"""Sockets that are about to be closed: the connections that wait on them are accepted before."""

import asyncio
import socket
import time

import pytest

from serving.process import listening as module
from serving.process.listening import accept_waiting
from tests.waiting import PATIENCE


def test_connections_made_while_the_event_loop_stands_still_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SECONDS", PATIENCE)
    accepted: list[socket.socket] = []

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
            listening.setblocking(False)
            waiting = asyncio.create_task(accept_waiting([listening]))
            await asyncio.sleep(0)
            client.connect(listening.getsockname())
            time.sleep(1.5 * module._QUIET_SECONDS)
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, loop.add_reader, listening, lambda: accepted.append(listening.accept()[0]))
            await waiting
            loop.remove_reader(listening)

    asyncio.run(test())

    for connection in accepted:
        connection.close()
    assert len(accepted) == 1
