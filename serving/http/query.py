"""Parses query parameters: refuses unknown and repeated ones by name."""

import reprlib
from dataclasses import dataclass

from starlette.requests import Request

from serving.errors import RequestError

_MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class QueryParameters:
    """The query parameters of an operation that takes images.

    A body must not hold them: they would be ignored there.

    Attributes:
        path: of the operation.
        names: in lower case.
    """

    path: str
    names: tuple[str, ...]

    def parse(self, request: Request) -> dict[str, str]:
        """Return the parameters of a request, as `parse_query` does."""
        return parse_query(request, *self.names)

    def place_of(self, field: str) -> str | None:
        """Return where a field of a body belongs, or None if it is no parameter."""
        name = field.lower()
        return f"belongs in the query string: POST {self.path}?{name}=..." if name in self.names else None


def parse_query(request: Request, *known: str) -> dict[str, str]:
    """Return the query parameters of a request by name.

    Raises:
        RequestError: `invalid_parameter`, for a parameter that is not `known` or given more than once.
    """
    if not request.scope["query_string"]:
        return {}
    pairs = request.query_params.multi_items()
    unknown = list(dict.fromkeys(name for name, _ in pairs if name not in known))
    if unknown:
        names = ", ".join(map(reprlib.repr, unknown[:_MAX_NAMES])) + (", ..." if len(unknown) > _MAX_NAMES else "")
        expected = f"expected only {', '.join(known)}" if known else "expected none"
        raise RequestError("invalid_parameter", f"unknown query parameter {names}: {expected}")
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(name for name in found if sum(name == other for other, _ in pairs) > 1)
        raise RequestError("invalid_parameter", f"{repeated}: expected one value, got several")
    return found


async def refuse_query(request: Request) -> None:
    """Raise RequestError if the request has any query parameter."""
    parse_query(request)
