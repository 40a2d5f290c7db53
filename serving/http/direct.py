"""Routes to the operations that take images, past FastAPI's parsing of parameters: it takes as long as some networks.

FastAPI has these routes too: for its document, and for requests whose parameters are not plain, which it may refuse.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

Operation = Callable[..., Awaitable[Response]]
# From the path's match and the query to the arguments of an operation; None: they are not plain.
Arguments = Callable[[re.Match[str], str], dict[str, Any] | None]


class DirectRoute(BaseRoute):
    """POST to an operation, where the path and the query are plain.

    Args:
        path: FastAPI's name of the route, for the metrics and traces.
        pattern: of the paths.
    """

    def __init__(self, path: str, pattern: str, arguments: Arguments, operation: Operation) -> None:
        self.path = self.path_format = path
        self._pattern = re.compile(pattern, re.ASCII)
        self._arguments = arguments
        self._operation = operation

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            found = self._pattern.fullmatch(scope["path"])
            if found is not None:
                arguments = self._arguments(found, scope["query_string"].decode("latin-1"))
                if arguments is not None:
                    return Match.FULL, {"route": self, "pdeinfer.cli.arguments": arguments}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response = await self._operation(request, **scope["pdeinfer.cli.arguments"])
        await response(scope, receive, send)


def query_arguments(_: re.Match[str], query: str) -> dict[str, Any] | None:
    """Return the model and top_k of a query that has nothing else, and each of them once."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=2)
    except ValueError:
        return None
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs) or not found.keys() <= {"model", "top_k"} or len(found.get("model", "")) > 200:
        return None
    if "top_k" in found:
        if not re.fullmatch(r"[1-9][0-9]{0,5}", found["top_k"]):
            return None
        found["top_k"] = int(found["top_k"])
    return found
