"""HTTP by hand: bytes sent to a server process, and all the bytes that come back."""

import socket
from pathlib import Path

from tests.servers import Server


def resident_megabytes(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def exchange(server: Server, *parts: bytes, end: bool = True) -> bytes:
    """Send the parts, say that this was all, and return everything that is answered until the connection closes."""
    answer = b""
    with server.connect() as connection:
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


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of the one answer that is waiting."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(file.readline, b"\r\n"))
        return status, headers, file.read(int(headers["content-length"]))


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/png", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
