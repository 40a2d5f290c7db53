"""The OpenAPI document: FastAPI's, completed with the plain routes, the errors and the keys."""

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.errors import ServingError
from serving.http.schemas import ErrorResponse
from serving.http.v2.schemas import V2Error
from serving.interface.keys import Keys

_REFERENCE = "#/components/schemas/{model}"
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return the schema that refers to a model of the document's components."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def describe_error(description: str, *examples: ServingError) -> dict[str, Any]:
    """Describe an error response, with examples of the error."""
    values = {error.code: {"value": {"error": {"code": error.code, "message": str(error)}}} for error in examples}
    return _json_answer(description, ErrorResponse, values)


def describe_v2_error(description: str, *examples: ServingError) -> dict[str, Any]:
    """Describe an error response under /v2, with examples of the error."""
    values = {f"{number}": {"value": {"error": str(error)}} for number, error in enumerate(examples, 1)}
    return _json_answer(description, V2Error, values)


def _json_answer(description: str, model: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": reference(model)}
    if examples:
        content["examples"] = examples
    return {"description": description, "content": {"application/json": content}}


def complete_document(
    app: FastAPI,
    operations: Mapping[str, Mapping[str, Any]],
    models: Collection[type[BaseModel]],
    keys: Keys,
) -> None:
    """Add plain routes, errors and keys to the OpenAPI document of an application that has all of its routes.

    Args:
        operations: the POST operations of plain routes, by path.
        models: those that the operations refer to.
        keys: by path; the operations that need one are marked.
    """
    document = app.openapi()  # FastAPI caches it
    for path, operation in operations.items():
        # A copy, as the keys differ between applications.
        document["paths"][path] = {"post": {**operation, "responses": dict(sorted(operation["responses"].items()))}}
    document["paths"] = dict(sorted(document["paths"].items()))
    named = [(model, "serialization") for model in (*models, ErrorResponse, V2Error)]
    _, definitions = models_json_schema(named, ref_template=_REFERENCE)  # type: ignore[arg-type]
    document["components"]["schemas"].update(definitions["$defs"])
    if keys.any_needed:
        _add_keys(document, keys)


def _add_keys(document: dict[str, Any], keys: Keys) -> None:
    """Mark the operations that need a key, and describe their answer without one."""
    for path, operations in document["paths"].items():
        if not keys.are_needed(path):
            continue
        for operation in operations.values():
            operation["security"] = [{name: []} for name in _SECURITY_SCHEMES]
            answer = describe_v2_error("No key") if path.startswith("/v2") else describe_error("No key")
            operation["responses"].setdefault("401", answer)
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
