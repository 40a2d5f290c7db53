"""The path by which a request is routed."""

from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """Return a request's path without the root_path of ASGI, under which the application may lie, as Starlette does."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"
