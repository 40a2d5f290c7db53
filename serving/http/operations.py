"""What the operations that take images share: finding the model, the results of the images, JSON."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pydantic_core

from pdeinfer import ImageError
from serving.engine.models import Models
from serving.engine.served_model import ServedModel
from serving.errors import NotReadyError, RequestError, ServingError
from serving.http.byte_budget import Hold
from serving.interface.answers import MAX_MODEL_NAME

T = TypeVar("T")

_AT_ONCE_BYTES = 2**14


def find_model(models: Models, name: str | None) -> ServedModel:
    """Return the model that the query parameter `model` names; by default, the first.

    Raises:
        ModelNotServedError, NotReadyError, RequestError: no such model is served, none at all, or it is not a name.
    """
    if name is None:
        name = models.default
        if name is None:
            raise NotReadyError
    if not 1 <= len(name) <= MAX_MODEL_NAME:
        message = f"model: expected a name of 1 to {MAX_MODEL_NAME} characters, got {len(name)} characters"
        raise RequestError("invalid_parameter", message)
    return models.get(name)


def results(
    served: ServedModel,
    names: Sequence[str | None],
    outcomes: Sequence[T | ImageError | ServingError],
    to_dict: Callable[[T], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the `result` of every image.

    Raises:
        RequestError: all images have failed, the first one with this code and message.
    """
    failed = [outcome for outcome in outcomes if isinstance(outcome, ImageError | ServingError)]
    if len(failed) == len(outcomes):
        raise RequestError(failed[0].code, str(failed[0]))
    return [result(served, name, outcome, to_dict) for name, outcome in zip(names, outcomes, strict=True)]


def result(
    served: ServedModel,
    name: str | None,
    outcome: T | ImageError | ServingError,
    to_dict: Callable[[T], dict[str, Any]],
) -> dict[str, Any]:
    """Return the JSON values of one image, and count it if it failed.

    Building models of pydantic would only cost time.
    """
    if isinstance(outcome, ImageError | ServingError):
        served.metrics.count_failed_image(outcome.code)
        return {"filename": name, "error": {"code": outcome.code, "message": str(outcome)}}
    return {"filename": name, **to_dict(outcome)}


def hold_answer(hold: Hold, size: int) -> None:
    """Count a large answer, which a client that reads slowly keeps in memory; a socket takes a small one at once.

    Raises:
        OverloadedError: the server holds too many bytes.
    """
    if size > _AT_ONCE_BYTES:
        hold(size)


def to_json(value: object) -> bytes:
    """Return JSON without spaces; its numbers must be finite."""
    return pydantic_core.to_json(value)
