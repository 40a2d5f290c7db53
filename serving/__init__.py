"""The HTTP server for model packages."""

from serving.app import create_app
from serving.settings import Settings

__all__ = ["Settings", "create_app"]
