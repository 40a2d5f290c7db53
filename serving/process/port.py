"""Takes the server's port for one server alone."""

import errno
import socket


def reserve(host: str, port: int) -> socket.socket:
    """Return a bound socket that keeps all other servers from the address, and does not listen itself.

    `open_socket` opens the one that listens.

    Raises:
        OSError: the address is in use or is none of this machine's, or `host` is not a host name.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except UnicodeError as error:  # a part of the name is empty or too long
        raise OSError(errno.EINVAL, "not a host name") from error
    with socket.socket(family, kind, protocol) as first:
        # Lets a restart have the port while closed connections of the former server linger.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(address)
        # Two such sockets may be bound to one address, but the kernel lets only one of them listen. From here on the
        # address is ours, as long as there is a socket on it that listens or does not allow to reuse it.
        first.listen(0)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # admits sockets of this user that have it too
        reserved = open_socket(first)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # before the first is closed
        return reserved


def open_socket(reserved: socket.socket) -> socket.socket:
    """Return another socket on a reserved address."""
    opened = socket.socket(reserved.family, reserved.type, reserved.proto)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(reserved.getsockname())
    return opened
