"""The messages between `pdeinfer.images.isolation` and its decoding processes."""

import json
import socket
import struct
from typing import Any

RUNNING = b"\0"  # the first byte from a decoding process

_HEAD = struct.Struct("=IQ")  # the bytes of JSON and of content that follow


def send(connection: socket.socket, values: dict[str, Any], content: bytes = b"") -> None:
    """Send a message: values of JSON, and bytes."""
    text = json.dumps(values).encode()
    connection.sendall(_HEAD.pack(len(text), len(content)) + text)
    connection.sendall(content)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Return the values and bytes of the next message.

    Raises:
        EOFError: the other end was closed.
    """
    text_bytes, content_bytes = _HEAD.unpack(receive_bytes(connection, _HEAD.size))
    values: dict[str, Any] = json.loads(receive_bytes(connection, text_bytes))
    return values, receive_bytes(connection, content_bytes)


def receive_bytes(connection: socket.socket, count: int) -> bytes:
    """Return the next bytes.

    Raises:
        EOFError: the other end was closed.
    """
    received = connection.recv(count, socket.MSG_WAITALL) if count else b""
    while len(received) < count:  # the other end was closed, or this process got a signal
        part = connection.recv(count - len(received), socket.MSG_WAITALL)
        if not part:
            raise EOFError
        received += part
    return received
