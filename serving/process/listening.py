"""Closes listening sockets without losing connections."""

import asyncio
import ctypes
import select
import socket
import struct

_QUIET_SECONDS = 0.1  # for connections that are half made
_MAX_SECONDS = 2.0

_SO_ATTACH_FILTER = 26  # of Linux's asm-generic/socket.h
# A classic BPF program that drops packets which open a connection: byte 13 of a TCP header has the flags.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # if it is SYN alone,
        (0x06, 0, 0, 0),  # drop the packet,
        (0x06, 0, 0, 0xFFFFFFFF),  # otherwise take all of it
    )
)


async def accept_waiting(listening: list[socket.socket]) -> None:
    """Give the server time to accept the connections that wait on sockets which are about to be closed.

    Closing a socket resets the connections that it has not accepted, although their clients may have sent requests.
    """
    poll = select.poll()
    for waiting in listening:
        poll.register(waiting.fileno(), select.POLLIN)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _MAX_SECONDS
    quiet_at = loop.time() + _QUIET_SECONDS
    while (now := loop.time()) < deadline:
        if poll.poll(0):  # asked even once that time is over: the event loop may have stood still
            quiet_at = now + _QUIET_SECONDS
        elif now >= quiet_at:
            return
        await asyncio.sleep(_QUIET_SECONDS / 20)


def stop_connecting(listening: socket.socket) -> None:
    """Let clients that connect from now on try again; they are refused once every process has closed the socket."""
    program = ctypes.create_string_buffer(_DROP_SYN)
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
        )
    except OSError:  # a sandbox forbids it; this still makes a connection, and may lose one that is half made
        listening.listen(0)
