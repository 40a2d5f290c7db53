"""One server process: loads the models, answers requests, and drains when it is told to stop."""

import asyncio
import gc
import logging
import mimetypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from types import FrameType

import PIL.Image
import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from pdeinfer import PdeinferError
from pdeinfer.text import one_line
from serving.app import create_app
from serving.engine.models import Models
from serving.http.protocol import Connections, LimitedProtocol
from serving.process import freed_memory
from serving.process.accepting import Acceptor, Share
from serving.process.ending import Ending
from serving.process.lifecycle import CANNOT_START, Started, seconds_to_stop, stop_signals, unblock_stop_signals
from serving.process.listening import accept_waiting, stop_connecting
from serving.process.membership import Membership
from serving.settings import Settings
from serving.telemetry.tracing import configure_tracing

logger = logging.getLogger(__name__)

# uvicorn cancels the requests that are not answered in time; then a worker has this long until it ends.
LEEWAY_SECONDS = 0.4

_TICKS_TO_TRIM = 30  # of a tenth of a second
_GC_THRESHOLD = 10_000  # new objects; by default the garbage collector runs every few requests


class Server(uvicorn.Server):
    """uvicorn's server, which reports "not ready" for a while before it stops accepting requests, and ends in time."""

    def __init__(
        self,
        config: uvicorn.Config,
        models: Models,
        connections: Connections,
        settings: Settings,
        started: Started,
        share: Share | None,
    ) -> None:
        super().__init__(config)
        self._share = share
        self._acceptor: Acceptor | None = None
        self.server_state: Connections = connections
        self._models = models
        self._settings = settings
        self._started = started
        self.ending = Ending()
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._share is None or not sockets:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._acceptor = Acceptor(sockets[0], self._share, self._make_protocol)
        await self._started()

    def _make_protocol(self) -> LimitedProtocol:
        return LimitedProtocol(self.config, self.server_state, self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._models.draining = True
        self.ending.end_within(seconds_to_stop(sig, self._settings) + LEEWAY_SECONDS)
        self.server_state.drain()
        if sig == signal.SIGINT:
            super().handle_exit(sig, frame)
        else:
            self._stop_at = self._stop_at or time.monotonic() + self._settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        if counter % _TICKS_TO_TRIM == 0:
            await asyncio.to_thread(freed_memory.trim)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        sockets = sockets or []
        if self._acceptor is None:  # otherwise other workers may go on, or the supervisor does it
            for listening in sockets:
                stop_connecting(listening)
        await accept_waiting(sockets)
        if self._acceptor is not None:
            await self._acceptor.close()
        await super().shutdown(sockets)


def serve(settings: Settings, listening: socket.socket, started: Started, membership: Membership | None = None) -> int:
    """Serve on a bound socket until a signal stops the server, answer the requests in flight, and return the exit code.

    Args:
        started: called once requests are accepted.
        membership: connects one of several workers to its supervisor.

    Returns:
        0 after a signal, CANNOT_START if a model or the device cannot be used.
    """
    _prepare_process(settings)
    if membership is None:
        app = create_app(settings)
    else:
        app = create_app(settings, membership.expected, membership.change, membership.metrics)
    config = _uvicorn_config(app, settings)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        try:
            runner.run(_serve_models(app, config, settings, listening, started, membership))
        except (PdeinferError, MemoryError) as error:
            if membership is None:
                print(f"pdeinfer serve: {one_line(error)}", file=sys.stderr)
            else:
                runner.run(membership.report_failure(one_line(error)))
            return CANNOT_START
    return 0


def _prepare_process(settings: Settings) -> None:
    """Set what holds for the whole process, before its event loop runs."""
    for number in stop_signals():
        signal.signal(number, lambda *_: os._exit(0))  # there is nothing to finish before requests are accepted
    unblock_stop_signals()
    freed_memory.unmap_large()
    # As many again for those that are refused, and for those of gRPC.
    _allow_open_files((2 if settings.grpc_port is None else 3) * settings.max_connections)
    sys.setswitchinterval(0.001)  # the event loop waits this long for a thread that parses, several times per request
    configure_tracing()


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        workers=1,  # otherwise WEB_CONCURRENCY is read, which may be no number
        ws="none",
        lifespan="off",  # `_serve_models` enters it: there, an error is an exception; uvicorn would log a traceback
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )


async def _serve_models(
    app: FastAPI,
    config: uvicorn.Config,
    settings: Settings,
    listening: socket.socket,
    started: Started,
    membership: Membership | None,
) -> None:
    """Load the models, join the other workers, and accept requests until a signal stops the server."""
    if membership is not None:
        await membership.open()
    await run_in_threadpool(_import_what_requests_need)
    async with app.router.lifespan_context(app):
        models: Models = app.state.models
        log_models(models, settings)
        models.start_decoding()
        if membership is not None:
            await membership.join(models)
        listening.setblocking(False)
        listening.listen(config.backlog)
        _spare_what_is_loaded()
        share = None if membership is None else membership.share
        connections = Connections(
            settings.max_connections,
            settings.max_head_bytes,
            app.state.admission,
            closed=(lambda: None) if share is None else partial(share.add, -1),
            origins=settings.cors_origins,
            access_log=settings.access_log,
        )
        server = Server(config, models, connections, settings, started, share)
        for number in stop_signals():  # uvicorn handles some itself, and raises SIGINT again when it has shut down
            signal.signal(number, server.handle_exit)
        async with grpc_beside(models, settings, lambda: server.should_exit):
            await server.serve([listening])
    server.ending.finish()


def grpc_beside(
    models: Models, settings: Settings, is_stopping: Callable[[], bool]
) -> AbstractAsyncContextManager[None]:
    """Return a context in which gRPC is answered beside HTTP, if the settings say so."""
    if settings.grpc_port is None:
        return nullcontext()
    from serving.grpc.server import serve_grpc

    return serve_grpc(models, settings, is_stopping)


def log_models(models: Models, settings: Settings) -> None:
    """Log what is served and what computes it, and what several workers cost on a GPU."""
    served = [f"{model.name} {model.version} ({model.execution})" for model in models]
    logger.info("models are loaded", extra={"fields": {"models": served, "threads": settings.worker_threads}})
    if settings.num_workers > 1 and any(model.info.device != "cpu" for model in models):
        logger.warning(
            "each of the %d workers has a CUDA context and a copy of every model in the GPU's memory",
            settings.num_workers,
        )


def _import_what_requests_need() -> None:
    """Load what libraries load when a request first needs it: by then the disk may be gone.

    Running this in Starlette's thread pool loads the pool.
    """
    PIL.Image.init()
    mimetypes.init()


def _spare_what_is_loaded() -> None:
    """Keep the garbage collector from traversing the loaded models again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def _allow_open_files(count: int) -> None:
    """Raise the limit on open files, often 1024, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512  # beside connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
