"""What the OpenAPI document says about every operation that takes images."""

from typing import Any

from serving.errors import DeadlineError, InferenceError, InternalError, NotReadyError, OverloadedError, RequestError
from serving.http.examples import BODY_TOO_LARGE, NO_SUCH_MODEL, UNSUPPORTED_ENCODING
from serving.http.openapi import describe_error
from serving.http.schemas import Base64Image
from serving.interface.answers import MAX_MODEL_NAME


def query_parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a query parameter that may be left out."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


MODEL_PARAMETER = query_parameter(
    "model",
    "a name from /models; by default, the first",
    {"type": "string", "minLength": 1, "maxLength": MAX_MODEL_NAME},
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY = {
    "required": True,
    "description": "One or many images: as the files of a form, under any field name; as JSON; or one image's bytes.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                        "description": "the images, in the order of the results",
                    }
                },
                "required": ["file"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"anyOf": [Base64Image.model_json_schema(), {"type": "string"}]},
                        "minItems": 1,
                    },
                },
                "required": ["images"],
                "additionalProperties": False,
            }
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
}

# The answers to requests that fail, but for 422, which each operation describes itself.
FAILURES = {
    "400": describe_error(
        "The body is malformed or holds no images",
        RequestError("invalid_form", "the form ends before its closing boundary"),
        RequestError("invalid_json", "images.0.content: Field required"),
        RequestError("invalid_compression", "the gzip data of the body is cut off"),
        RequestError("no_images", "the form holds no image: send each as a file, like curl -F file=@seven.png"),
    ),
    "404": describe_error("No such model", NO_SUCH_MODEL),
    "408": describe_error(
        "The body took too long", RequestError("body_timeout", "the body of a request must be sent within 60 seconds")
    ),
    "413": describe_error(
        "The body is too large or holds too many images",
        BODY_TOO_LARGE,
        RequestError("too_many_images", "a request may hold at most 64 images"),
        RequestError("json_too_large", "expected at most 2048 values of JSON, for 64 images"),
    ),
    "415": describe_error(
        "Neither a form, nor JSON, nor an image",
        RequestError(
            "unsupported_media_type",
            "expected the content type multipart/form-data, application/json, image/* or application/octet-stream, "
            "got text/plain",
        ),
        UNSUPPORTED_ENCODING,
    ),
    "500": describe_error("The server or the network failed", InternalError(), InferenceError()),
    "503": describe_error(
        "The server is at capacity: Retry-After says when to try again. Or it serves no model",
        OverloadedError(),
        NotReadyError(),
    ),
    "504": describe_error("The request ran out of time", DeadlineError()),
}
