"""`pdeinfer serve`: from the command line to an exit code."""

import logging
import signal
import sys
from collections.abc import Sequence

from serving.process.arguments import parse_settings
from serving.process.port import open_socket, reserve
from serving.process.supervisor import Supervisor
from serving.process.worker import serve
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
    port = settings.port
    try:
        reserved = reserve(settings.host, port)
        if settings.grpc_port is not None:
            port = settings.grpc_port
            reserved_for_grpc = reserve(settings.host, port)
            settings = settings.model_copy(update={"grpc_port": reserved_for_grpc.getsockname()[1]})
    except OSError as error:
        print(f"pdeinfer serve: {settings.host}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    async def started() -> None:
        if settings.grpc_port is not None:
            logger.info("answering gRPC on %s:%d", host, settings.grpc_port)
        logger.info("running on http://%s:%d", host, reserved.getsockname()[1])

    if settings.workers > 1:
        return Supervisor(settings, reserved, started).run()
    return serve(settings, open_socket(reserved), started)
