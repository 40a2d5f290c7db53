"""Refuses requests by their heads while the queue of their model is full."""

import re
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from serving.engine.models import Models
from serving.engine.served_model import ServedModel
from serving.errors import OverloadedError, ServingError
from serving.http.classify import PATH
from serving.http.embed import PATH as EMBED_PATH
from serving.http.inspect import PATH as INSPECT_PATH
from serving.http.raw_answers import RawAnswer
from serving.http.v2.infer import PATHS as V2_PATHS
from serving.interface.pace import Pace

_V2_PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


class Admission:
    """Decides by the head of a request whether it may start.

    Args:
        models: the served models.
        pace: of the refusals, also of those after the head.
    """

    def __init__(self, models: Models, pace: Pace) -> None:
        self._models = models
        self._pace = pace

    def __call__(self, method: bytes, path: str, query: bytes) -> RawAnswer | None:
        """Return the answer to a request whose model's queue is full; None: it may start.

        Args:
            path: percent-encoded.
        """
        if method != b"POST" or not self._models.any_is_full:
            return None
        path = unquote(path)
        if (found := self._find(path, query)) is None:
            return None
        route, model = found
        if not model.is_full:
            return None
        error = OverloadedError()
        return RawAnswer(
            HTTPStatus.SERVICE_UNAVAILABLE,
            error.code,
            str(error),
            is_v2=route in V2_PATHS,
            route=route,
            method="POST",
            path=path,
            delay=self._pace.delay(),
        )

    def _find(self, path: str, query: bytes) -> tuple[str, ServedModel] | None:
        """Return the route and the model of a request that classifies."""
        try:
            if path in (PATH, EMBED_PATH, INSPECT_PATH):
                name = dict(parse_qsl(query.decode("latin-1"))).get("model", self._models.default)
                return (path, self._models.get(name)) if name else None
            if found := _V2_PATH.fullmatch(path):
                route = V2_PATHS[0] if found["version"] is None else V2_PATHS[1]
                return route, self._models.get(found["model"], found["version"])
        except ServingError:
            pass  # the application answers that there is no such model
        return None
