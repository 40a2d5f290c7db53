"""The server's port: taken by one server alone."""

import errno
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from serving.process.port import open_socket, reserve


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::")])  # noqa: S104
def test_of_two_servers_that_take_a_port_at_once_at_most_one_gets_it(hosts: tuple[str, str]) -> None:
    with reserve(hosts[0], 0) as reserved:
        port = reserved.getsockname()[1]
    barrier = Barrier(2)
    sockets: list[socket.socket] = []

    def take(host: str) -> str:
        barrier.wait(10)
        try:
            sockets.append(reserve(host, port))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        sockets.append(open_socket(sockets[-1]))
        return "reserved"

    outcomes: Counter[tuple[str, ...]] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            outcomes[tuple(sorted(pool.map(take, hosts)))] += 1
            for each in sockets:
                each.close()
            sockets.clear()
    # When both listen in the same instant, the kernel may refuse both.
    assert set(outcomes) <= {("EADDRINUSE", "reserved"), ("EADDRINUSE", "EADDRINUSE")}
    assert outcomes["EADDRINUSE", "reserved"] > 100


@pytest.mark.parametrize("reuses", [True, False])
def test_no_other_program_can_listen_on_a_reserved_port(reuses: bool) -> None:
    with reserve("127.0.0.1", 0) as reserved, open_socket(reserved), socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuses)
        with pytest.raises(OSError, match="in use"):
            other.bind(reserved.getsockname())


def test_a_port_that_another_program_listens_on_cannot_be_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        reserve(*other.getsockname())


def test_a_restart_can_listen_while_closed_connections_of_former_processes_linger() -> None:
    def listen(port: int) -> tuple[socket.socket, socket.socket]:
        reserved = reserve("127.0.0.1", port)
        listening = open_socket(reserved)
        listening.listen()
        return reserved, listening

    reserved, listening = listen(0)
    port = reserved.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        listening.accept()[0].close()
        assert client.recv(1) == b""
    for former in (reserved, listening):
        former.close()
    for now in listen(port):
        now.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")
def test_a_server_of_another_user_cannot_reserve_the_port_too() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        os.seteuid(65534)
        try:
            with pytest.raises(OSError, match="in use"):
                reserve(*reserved.getsockname())
        finally:
            os.seteuid(0)
