"""One server process: its application on a socket, from loading the models to the last answer."""

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from pdeinfer import PdeinferError
from serving.app import create_app
from serving.engine.models import Models
from serving.process.link import Link
from serving.process.protocol import LimitedProtocol
from serving.settings import Settings
from serving.telemetry.tracing import configure_tracing

logger = logging.getLogger(__name__)

CANNOT_START = 2


class Server(uvicorn.Server):
    """uvicorn's server that, after SIGTERM, says that it is not ready before it stops to accept requests."""

    def __init__(
        self, config: uvicorn.Config, models: Models, drain_seconds: float, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._models = models
        self._drain_seconds = drain_seconds
        self._started = started
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._models.draining = True
        if sig == signal.SIGTERM:
            self._stop_at = self._stop_at or time.monotonic() + self._drain_seconds
        else:  # Ctrl-C: nobody balances any load
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: Settings, listening: socket.socket, started: Callable[[], None], link: Link | None = None) -> int:
    """Serve on a bound socket until SIGTERM or SIGINT, answer the requests in flight, and return the exit code.

    Args:
        started: called once the models are loaded and requests are accepted.
        link: to the supervisor, where there is one; without it any more, the server stops.

    Returns:
        0 after a signal, 1 where the address cannot be listened on, CANNOT_START where a model or the device cannot be
        used as asked.
    """
    _return_freed_memory()
    configure_tracing()
    app = create_app(settings, *((link.names, link.change) if link else ()))
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",  # `run` has it: there an error is an exception, where uvicorn would log a traceback
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )

    async def run() -> int:
        async with app.router.lifespan_context(app):
            models: Models = app.state.models
            served = [f"{model.name} {model.version} ({model.info.provider})" for model in models]
            logger.info("models are loaded", extra={"fields": {"models": served, "threads": settings.worker_threads}})
            try:
                listening.listen(config.backlog)
            except OSError as error:  # another process was bound to the address too, and was first
                return cannot_listen(settings, error)
            server = Server(config, models, settings.drain_seconds, started)
            # What is loaded stays: the garbage collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            # uvicorn raises SIGINT again, once it has shut down, to the handler that was there before it.
            signal.signal(signal.SIGINT, lambda *_: None)
            if link is not None:
                link.connect(models, lost=lambda: server.handle_exit(signal.SIGTERM, None))
            await server.serve([listening])
            return 0

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            return runner.run(run())
    except PdeinferError as error:
        print(f"pdeinfer serve: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:  # while the models are loaded
        pass
    return 0


def cannot_listen(settings: Settings, error: OSError) -> int:
    """Say so, and return the exit code."""
    print(f"pdeinfer serve: {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
    return 1


def _return_freed_memory() -> None:
    """Have the memory of large images returned to the system when they are done with.

    By default, glibc keeps of each thread what it once had: hundreds of megabytes after a few large images.
    """
    m_mmap_threshold = -3  # of malloc.h: from so many bytes, memory comes from the system and goes back to it
    with suppress(AttributeError, OSError):  # other systems have other allocators
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 2**20)
