"""The server's process: from the settings to an exit code."""

import asyncio
import copy
import signal
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from pdeinfer import PdeinferError
from serving.app import create_app
from serving.settings import Settings, parse_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the command line says, and return the exit code."""
    return run(parse_settings(sys.argv[1:] if arguments is None else arguments))


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, finish the requests in flight, and return the exit code.

    0: stopped by a signal. 1: the address cannot be listened on. 2: a model or the device cannot be used as asked.
    """
    log_config = copy.deepcopy(LOGGING_CONFIG)
    log_config["loggers"]["serving"] = {"handlers": ["default"], "level": "INFO"}
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",  # `_serve` runs it: there an error is an exception, where uvicorn would log a traceback
        ws="none",
        log_config=log_config,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(app, uvicorn.Server(config)))
    except PdeinferError as error:
        print(f"pdeinfer serve: {error}", file=sys.stderr)
        return 2
    except SystemExit:  # uvicorn has logged why it cannot listen
        return 1
    return 0


async def _serve(app: FastAPI, server: uvicorn.Server) -> None:
    async with app.router.lifespan_context(app):
        # Once it has shut down gracefully, uvicorn raises the signal again, to the handler that was there before it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        await server.serve()
