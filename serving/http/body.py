"""Request bodies, read, inflated and parsed within the limits."""

import asyncio
import codecs
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.engine.deadline import until
from serving.engine.threads import Threads
from serving.errors import RequestError, ServingError
from serving.http.byte_budget import ByteBudget, Hold
from serving.http.compression import inflate
from serving.http.errors import answer_error
from serving.http.header_lists import names
from serving.http.state import models_of, settings_of
from serving.interface.pace import Pace

T = TypeVar("T")

# What is larger is parsed in a thread, where it does not hold up other requests.
PARSED_AT_ONCE = 4 * 2**10
MAX_SMALL_BYTES = PARSED_AT_ONCE  # of a body that holds no images

Answer: TypeAlias = Callable[[Request, Hold], Awaitable[Response]]


class ImageRoute(Route):
    """POST to an operation that takes images.

    Args:
        path: with the names of its parameters in braces.
        answer: answers a request; it passes its second argument to `read_body`.
        budget: counts the bytes of all request bodies.
    """

    def __init__(self, path: str, answer: Answer, budget: ByteBudget) -> None:
        super().__init__(path, _ImageOperation(answer, budget), methods=["POST"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}  # FastAPI's router sets it for FastAPI's own routes only


class _ImageOperation:
    """ASGI endpoint that counts the bytes of an inflated body as held until the response is sent."""

    def __init__(self, answer: Answer, budget: ByteBudget) -> None:
        self._answer = answer
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._budget.lease() as hold:
            response = await self._answer(Request(scope, receive), hold)
            await response(scope, receive, send)


class ImageRoutes:
    """ASGI middleware that passes requests for the operations that take images around FastAPI's layers.

    These, and trying all other routes first, take as long as some networks. The application has the routes too: it
    answers other methods, and all requests that are traced.

    Args:
        pace: of the refusals.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[ImageRoute], pace: Pace) -> None:
        self.app = app
        self._routes = routes
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "fastapi.telemetry" not in scope:
            for route in self._routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope)
                    await self._answer(route, scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _answer(self, route: ImageRoute, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await route.app(scope, receive, send)
        except ServingError as error:
            response = await answer_error(scope, error, self._pace)
            await response(scope, receive, send)


async def read_body(request: Request, hold: Hold) -> tuple[bytes, float]:
    """Return the inflated body of a request, and the deadline for its answer on the event loop's clock.

    Raises:
        RequestError: the body cannot be inflated.
        OverloadedError: the server holds too many bytes.
        DeadlineError: no thread was free in time.
    """
    settings = settings_of(request)
    # Request.body() would keep the body until the response is sent.
    body = b"".join([chunk async for chunk in request.stream()])
    deadline = asyncio.get_running_loop().time() + settings.request_timeout
    encodings = names(request.headers, "content-encoding")
    if encodings:
        threads = models_of(request).threads
        inflating = threads.run(inflate, body, encodings, settings.max_body_bytes)
        sent, body = body, await until(deadline, inflating)
        if body is not sent:
            hold(len(body))
    return body, deadline


async def read_small_body(request: Request) -> bytes:
    """Return the inflated body of a request that holds no images.

    Raises:
        RequestError: it has more than MAX_SMALL_BYTES, as sent or as inflated, or cannot be inflated.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SMALL_BYTES:
            raise RequestError("body_too_large", f"the body of this request may have at most {MAX_SMALL_BYTES} bytes")
    if body:
        body = inflate(body, names(request.headers, "content-encoding"), MAX_SMALL_BYTES)
    return body.removeprefix(codecs.BOM_UTF8)


async def parse(threads: Threads, function: Callable[[bytes], T], body: bytes, size: int | None = None) -> T:
    """Return `function(body)`, computed in a thread if there is much to parse.

    Args:
        size: the bytes to parse; None: all.
    """
    if (len(body) if size is None else size) <= PARSED_AT_ONCE:
        return function(body)
    return await threads.run(function, body)
