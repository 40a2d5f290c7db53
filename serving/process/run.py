"""`pdeinfer serve`: from the command line to an exit code."""

import errno
import logging
import signal
import socket
import sys
from collections.abc import Sequence

from serving.process.arguments import parse_settings
from serving.process.supervisor import Supervisor
from serving.process.worker import cannot_listen, serve
from serving.settings import Settings
from serving.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the command line says, and return the exit code."""
    return run(parse_settings(sys.argv[1:] if arguments is None else arguments))


def run(settings: Settings) -> int:
    """Serve until a signal stops the server, answer the requests in flight, and return the exit code.

    Returns:
        0 after a signal, 1 if the address cannot be listened on or a worker died while it started, 2 if a model or the
        device cannot be used.
    """
    configure_logging()
    for name in ("SIGUSR1", "SIGUSR2"):  # elsewhere they mean "reopen the logs"; by default they would end the process
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        listening = bind(settings.host, settings.port)
    except OSError as error:
        return cannot_listen(settings, error)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    async def started() -> None:
        logger.info("running on http://%s:%d", host, listening.getsockname()[1])

    if settings.workers > 1:
        return Supervisor(settings, listening, started).run()
    return serve(settings, listening, started)


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket, which does not listen before the models are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except UnicodeError as error:  # a part of the name is empty or too long
        raise OSError(errno.EINVAL, "not a host name") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound
