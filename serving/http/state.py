"""What `serving.app` gives the operations to work with."""

from starlette.requests import Request

from serving.engine.models import Models
from serving.settings import Settings


def models_of(request: Request) -> Models:
    """Return the served models."""
    models: Models = request.app.state.models
    return models


def settings_of(request: Request) -> Settings:
    """Return the server's settings."""
    settings: Settings = request.app.state.settings
    return settings
