"""`pdeinfer serve`: from the command line to an exit code."""

import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence

from pdeinfer import PdeinferError
from pdeinfer.errors import MissingDependencyError
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.runtime.cuda import has_cuda, has_cuda_device
from pdeinfer.runtime.onnx_runtime import import_onnxruntime
from serving.process.arguments import parse_settings
from serving.process.port import open_socket, reserve
from serving.process.supervisor import Supervisor
from serving.settings import Settings
from serving.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)

_WORKER_LIBRARIES = (
    "fastapi", "fastapi_offline", "httptools", "opentelemetry", "prometheus_client", "python_multipart", "starlette",
    "uvicorn",
)  # fmt: skip
_GRPC_LIBRARIES = ("grpc", "grpc_health", "grpc_reflection")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the command line says, and return the exit code."""
    return run(parse_settings(sys.argv[1:] if arguments is None else arguments))


def run(settings: Settings) -> int:
    """Serve until a signal stops the server, answer the requests in flight, and return the exit code.

    Returns:
        0 after a signal, 1 if the address cannot be listened on or a worker died while it started, 2 if a model or the
        device cannot be used, or the system is not Linux.
    """
    if sys.platform != "linux":
        print(f"pdeinfer serve: the server needs Linux, and this is {sys.platform}", file=sys.stderr)
        return 2
    open_standard_streams()
    configure_logging()
    if settings.grpc_port is not None and any(importlib.util.find_spec(name) is None for name in _GRPC_LIBRARIES):
        raise MissingDependencyError("gRPC", "grpc", "--grpc-port")
    # Elsewhere they mean "reopen the logs"; by default they would end the process.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
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
    listening = open_socket(reserved)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    settings, reason = count_workers(settings)

    async def started() -> None:
        logger.info("workers: %d, %s", settings.num_workers, reason)
        if settings.grpc_port is not None:
            logger.info("answering gRPC on %s:%d", host, settings.grpc_port)
        logger.info("running on http://%s:%d", host, reserved.getsockname()[1])

    if settings.num_workers > 1:
        require_libraries()
        return Supervisor(settings, listening, started).run()
    from serving.process.worker import serve

    return serve(settings, listening, started)


def open_standard_streams() -> None:
    """Open the null device in the place of a standard stream that is closed (`2>&-`), for the workers too.

    Otherwise a connection could get its number, and with it what libraries print.
    """
    for number in range(3):
        try:
            os.set_inheritable(number, True)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def require_libraries() -> None:
    """Raise ModuleNotFoundError unless the libraries that only the workers import are installed."""
    for name in _WORKER_LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def count_workers(settings: Settings) -> tuple[Settings, str]:
    """Return the settings with a number in place of workers "auto", and the reason for it."""
    if settings.workers != "auto":
        return settings, "as set"
    if _is_on_gpu(settings.device):
        count, reason = 1, "one on a GPU"
    else:
        threads = settings.threads or 1
        count = max(1, available_cpus() // threads)
        reason = "one for each CPU" if threads == 1 else f"one for every {threads} CPUs, as each has {threads} threads"
    return settings.model_copy(update={"workers": count}), reason


def _is_on_gpu(device: str) -> bool:
    if device != "auto":
        return device.startswith("cuda")
    try:
        return has_cuda_device() and has_cuda(import_onnxruntime())
    except PdeinferError:  # the worker says what is missing
        return False
