"""Gives every request an id, counts and times it, and logs the server's own faults."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import InternalError, ServingError, StoppingError
from serving.http.browser_headers import cross_origin_headers
from serving.http.errors import error_response
from serving.http.paths import route_path
from serving.interface.request_id import request_id_for
from serving.telemetry.logs import request_id
from serving.telemetry.requests import record_request

logger = logging.getLogger(__name__)


class Observation:
    """ASGI middleware that gives each request an id and returns it in the response.

    The id is the client's X-Request-Id if that is well formed, and a random one otherwise. An exception of the
    application is logged with the id and answered with an opaque 500. A request that is cancelled because the server
    stops is answered with a 503, and one whose client has left is not answered.

    Args:
        routes: of the application.
        access_log: whether each request is logged.
        origins: whose pages may read these answers; "*": all.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route], access_log: bool, origins: Collection[str]) -> None:
        self.app = app
        self._routes = routes
        self.access_log = access_log
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        current_id = request_id_for(Headers(scope=scope).get("x-request-id", ""))
        request_id.set(current_id)
        status: int | None = None
        has_ended = False  # answered completely, or broken off by this server

        async def observed_send(message: Message) -> None:
            nonlocal status, has_ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", current_id.encode())]}
            await send(message)
            has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        async def answer(error: ServingError) -> None:
            response = error_response(scope, error)
            response.raw_headers += cross_origin_headers(self.origins, scope["headers"])  # it does not pass CORS
            await response(scope, receive, observed_send)

        try:
            await self.app(scope, receive, observed_send)
        except asyncio.CancelledError:  # uvicorn cancels what is not answered within --shutdown-timeout
            if status is None:
                await answer(StoppingError())
            has_ended = True
        except ClientDisconnect as error:  # while it sent its body: nobody reads an answer
            error.__traceback__ = None  # as in `serving.http.errors`
        except Exception:
            logger.exception("the server failed to answer a request")
            if status is None:
                await answer(InternalError())
            has_ended = True
        finally:
            self._record(scope, status if has_ended else None, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int | None, seconds: float) -> None:
        client = scope.get("client")
        record_request(
            self._route_of(scope),
            "disconnected" if status is None else str(status),
            seconds,
            is_logged=self.access_log,
            method=scope["method"],
            path=scope["path"],
            client=client and client[0],
        )

    def _route_of(self, scope: Scope) -> str:
        """Return the path of a request's route, also if middleware has answered it, such as with 401 or 413."""
        if "route" in scope:
            return getattr(scope["route"], "path", "other")
        if scope["method"] == "OPTIONS":  # a browser that asks whether it may send the request
            return "other"
        path = route_path(scope)
        return next((route.path for route in self._routes if route.path_regex.match(path)), "other")
