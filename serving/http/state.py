"""Typed access to what `serving.app` hands to the operations."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request

from serving.engine.models import Action, Models
from serving.settings import Settings
from serving.telemetry.metrics import Snapshot

# Takes a model's name and an action; returns the versions served afterwards.
ChangeModel: TypeAlias = Callable[[str, Action], Awaitable[tuple[str, ...]]]
ReadMetrics: TypeAlias = Callable[[], Awaitable[Snapshot]]


def models_of(request: Request) -> Models:
    """Return the served models."""
    models: Models = request.app.state.models
    return models


def settings_of(request: Request) -> Settings:
    """Return the server's settings."""
    settings: Settings = request.app.state.settings
    return settings


def change_model_of(request: Request) -> ChangeModel:
    """Return the function that loads and unloads models, in this process or in all workers."""
    change_model: ChangeModel = request.app.state.change_model
    return change_model


async def read_metrics(request: Request) -> Snapshot | None:
    """Return what all workers have counted, or None if there is only this process."""
    read: ReadMetrics | None = request.app.state.read_metrics
    return None if read is None else await read()
