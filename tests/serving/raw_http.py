"""HTTP by hand: bytes sent to a server process, and all the bytes that come back."""

import socket
from pathlib import Path

from tests.servers import Server

PATIENCE = 10.0  # seconds for what should take a few milliseconds


def resident_megabytes(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def exchange(server: Server, *parts: bytes, end: bool = True) -> bytes:
    """Send the parts, say that this was all, and return everything that is answered until the connection closes."""
    answer = b""
    with server.connect() as connection:
        connection.settimeout(PATIENCE)
        try:
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                answer += received
        except ConnectionError:  # the server was right to hang up
            pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/png", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
