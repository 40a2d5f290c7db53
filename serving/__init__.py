"""The HTTP server for model packages."""

from typing import TYPE_CHECKING, Any

from serving.settings import Settings

if TYPE_CHECKING:
    from serving.app import create_app

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":  # the supervisor of several workers starts sooner without it
        from serving.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
