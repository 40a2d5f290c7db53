"""The ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from pdeinfer import __version__
from serving.body_limit import BodyLimit
from serving.disconnect import CancelOnDisconnect
from serving.errors import add_error_handlers
from serving.models import Models
from serving.routes import router
from serving.settings import Settings
from serving.v2 import router as v2_router


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its lifespan loads the models and, at the end, closes them.

    Entering the lifespan raises what `serving.models.Models` raises.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.models = await asyncio.to_thread(Models, settings)
        try:
            yield
        finally:
            await asyncio.to_thread(app.state.models.close)

    # FastAPI's documentation page loads its scripts from a CDN; this one has them with it.
    app = FastAPIOffline(
        title="pdeinfer",
        version=__version__,
        description="Image classification with compact networks that solve a diffusion-advection equation.",
        redoc_url=None,
        redirect_slashes=False,  # clients of V2 follow no redirect
        lifespan=lifespan,
    )
    app.state.settings = settings
    # The last one added is the first one asked.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    add_error_handlers(app)
    app.include_router(router)
    app.include_router(v2_router)
    return app
