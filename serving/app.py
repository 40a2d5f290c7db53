"""The ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from pdeinfer import __version__
from serving.engine.models import Models
from serving.errors import add_error_handlers
from serving.http import admin, routes, v2
from serving.http.page import add_page
from serving.middleware.body_limit import BodyLimit
from serving.middleware.disconnect import CancelOnDisconnect
from serving.middleware.observation import Observation
from serving.middleware.security import ApiKeys, SecurityHeaders, document_keys
from serving.settings import Settings

_PROBES = ("/healthz", "/readyz", "/v2/health/")
_DOCUMENTATION = ("/docs", "/openapi.json")


def create_app(settings: Settings, names: Sequence[str] | None = None) -> FastAPI:
    """Return the application; its lifespan loads the models and, at the end, closes them.

    Entering the lifespan raises what `serving.engine.models.Models` raises, to which `names` is passed.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.models = await asyncio.to_thread(Models, settings, names)
        app.state.change_model = app.state.models.change
        try:
            yield
        finally:
            await asyncio.to_thread(app.state.models.close)

    app = FastAPI(
        title="pdeinfer",
        version=__version__,
        description="Image classification with compact networks that solve a diffusion-advection equation.",
        docs_url=None,  # FastAPI's own loads its scripts from a CDN, and starts them inline
        redoc_url=None,
        redirect_slashes=False,  # clients of V2 follow no redirect
        # Of OpenTelemetry its traces: metrics and logs are `serving.telemetry.metrics` and `serving.telemetry.logs`.
        telemetry={"auto_configure": False, "metrics": False, "logs": False, "operation_spans": False},
        lifespan=lifespan,
    )
    app.state.settings = settings
    add_error_handlers(app)
    add_page(app)
    app.router.routes.extend((routes.DIRECT, *v2.DIRECT))
    app.include_router(routes.router)
    app.include_router(v2.router)
    if settings.keys_of_admins():
        app.include_router(admin.router)
    keys = _keys(settings)
    if any(keys.values()):
        document_keys(app.openapi(), keys)

    # The last one added is the first one asked.
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(ApiKeys, keys=keys)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        max_total_bytes=settings.max_total_bytes,
        timeout=settings.body_timeout,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=(
                *("Authorization", "X-API-Key", "X-Request-Id"),
                *("Content-Type", "Content-Encoding", "Inference-Header-Content-Length"),
            ),
            expose_headers=("Inference-Header-Content-Length", "Retry-After", "X-Request-Id"),
        )
    app.add_middleware(Observation, access_log=settings.access_log)
    app.add_middleware(SecurityHeaders)
    return app


def _keys(settings: Settings) -> dict[str, list[str]]:
    """Return the keys that open the paths with a prefix; no keys: it is open."""
    admin_keys = settings.keys_of_admins()
    keys = [*settings.keys(), *admin_keys] if settings.keys() else []
    paths = {"/": keys, "/admin": admin_keys, "/metrics": keys if settings.metrics_need_key else []}
    paths.update((path, keys if settings.probes_need_key else []) for path in _PROBES)
    paths.update((path, []) for path in _DOCUMENTATION)
    return paths
