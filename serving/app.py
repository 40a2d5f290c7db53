"""Builds the ASGI application: routes, OpenAPI document and middleware."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from pdeinfer import __version__
from serving.engine.models import Expected, Models
from serving.http import admin, classify, embed, health, inspect, models
from serving.http.admission import Admission
from serving.http.body import ImageRoute, ImageRoutes
from serving.http.browser_headers import EXPOSED
from serving.http.byte_budget import ByteBudget
from serving.http.docs_page import ASSETS, add_docs_page
from serving.http.errors import add_error_handlers
from serving.http.openapi import complete_document
from serving.http.page import FILES, add_page
from serving.http.page import PATH as PAGE
from serving.http.state import ChangeModel, ReadMetrics
from serving.http.v2 import infer
from serving.http.v2.routes import ROUTERS as V2_ROUTERS
from serving.interface.keys import Keys
from serving.interface.pace import Pace
from serving.middleware.body_limit import BodyLimit
from serving.middleware.disconnect import CancelOnDisconnect
from serving.middleware.error_shape import ErrorShape
from serving.middleware.head import HeadAsGet
from serving.middleware.observation import Observation
from serving.middleware.security import ApiKeys, SecurityHeaders
from serving.settings import Settings

_PROBES = ("/healthz", "/readyz", "/v2/health/")
_OPEN = ("/docs", "/openapi.json", FILES)


def create_app(
    settings: Settings,
    expected: Expected | None = None,
    change_model: ChangeModel | None = None,
    read_metrics: ReadMetrics | None = None,
) -> FastAPI:
    """Return the application; its lifespan loads the models and closes them at the end.

    Entering the lifespan raises what `serving.engine.models.Models.load` raises.

    Args:
        expected: the models to serve at first, as `Models.load` takes them.
        change_model: makes the changes that admins request; None: they are made in this process only.
        read_metrics: returns what all workers have counted; None: there is only this process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served = Models(settings)
        await served.load(expected)
        app.state.models = served
        app.state.admission = Admission(served, pace)
        app.state.change_model = change_model or served.change
        app.state.read_metrics = read_metrics
        try:
            yield
        finally:
            await asyncio.to_thread(served.close)

    app = FastAPIOffline(
        title="pdeinfer",
        version=__version__,
        description="Image classification with compact networks that solve a diffusion-advection equation.",
        servers=[{"url": ".", "description": "relative to this document"}],
        # Its own pages have inline scripts. `serving.http.docs_page` uses only the files that it serves.
        docs_url=None,
        redoc_url=None,
        static_url=ASSETS,
        redirect_slashes=False,  # V2 clients do not follow redirects
        # OpenTelemetry gets traces only: `serving.telemetry` has its own metrics and logs.
        telemetry={"auto_configure": False, "metrics": False, "logs": False, "operation_spans": False},
        lifespan=lifespan,
    )
    app.state.settings = settings
    keys = _keys(settings)
    budget = ByteBudget(settings.max_total_bytes)
    pace = Pace()
    add_error_handlers(app, pace)
    image_routes = [
        ImageRoute(classify.PATH, classify.classify, budget),
        *(ImageRoute(path, infer.infer, budget) for path in infer.PATHS),
        ImageRoute(embed.PATH, embed.embed, budget),
        ImageRoute(inspect.PATH, inspect.inspect, budget),
    ]
    routes = _add_routes(app, settings, image_routes)
    operations = {
        classify.PATH: classify.OPERATION,
        embed.PATH: embed.OPERATION,
        inspect.PATH: inspect.OPERATION,
        **{path: infer.operation(path) for path in infer.PATHS},
    }
    complete_document(app, operations, (*classify.SCHEMAS, *embed.SCHEMAS, *inspect.SCHEMAS, *infer.SCHEMAS), keys)

    # The last one added sees a request first.
    app.add_middleware(ImageRoutes, routes=image_routes, pace=pace)
    app.add_middleware(HeadAsGet)
    app.add_middleware(CancelOnDisconnect)
    if keys.any_needed:
        app.add_middleware(ApiKeys, keys=keys, open_paths=(PAGE,))
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, budget=budget, timeout=settings.body_timeout)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=(
                *("Authorization", "X-API-Key", "X-Request-Id", "Traceparent", "Tracestate", "Baggage"),
                *("Content-Type", "Content-Encoding", "Inference-Header-Content-Length"),
            ),
            expose_headers=EXPOSED,
        )
    app.add_middleware(ErrorShape)
    app.add_middleware(Observation, routes=routes, access_log=settings.access_log, origins=settings.cors_origins)
    app.add_middleware(SecurityHeaders)
    return app


def _add_routes(app: FastAPI, settings: Settings, image_routes: Sequence[ImageRoute]) -> list[Route]:
    """Add all routes and return them."""
    add_docs_page(app)
    add_page(app)
    app.router.routes.extend(image_routes)
    routers = [models.router, health.router, *V2_ROUTERS]
    if settings.keys_of_admins():
        routers.append(admin.router)
    for router in routers:
        app.include_router(router)
    added = (app.routes, *(router.routes for router in routers))  # new versions of FastAPI nest routers
    return [route for routes in added for route in routes if isinstance(route, Route)]


def _keys(settings: Settings) -> Keys:
    admin_keys, keys = settings.keys_of_admins(), settings.accepted_keys()
    paths = {"/": keys, "/admin": admin_keys, "/metrics": keys if settings.metrics_need_key else []}
    paths.update((path, keys if settings.probes_need_key else []) for path in _PROBES)
    paths.update((path, []) for path in _OPEN)
    return Keys(paths)
