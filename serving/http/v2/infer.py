"""POST /v2/models/{model}/infer: a model's outputs for pixels of its own size, or for encoded images."""

from functools import partial
from typing import Any

from fastapi import Request, Response

from serving.engine.deadline import until
from serving.errors import DeadlineError, InternalError, OverloadedError, RequestError
from serving.http.body import parse, read_body
from serving.http.byte_budget import Hold
from serving.http.compression import accepted_encoding, compress
from serving.http.examples import BODY_TOO_LARGE, IMAGE_ERRORS, UNSUPPORTED_ENCODING
from serving.http.openapi import describe_v2_error, reference
from serving.http.operations import hold_answer
from serving.http.query import parse_query
from serving.http.state import models_of, settings_of
from serving.http.v2.request import json_length, parse_request
from serving.http.v2.response import encode_response
from serving.http.v2.routes import DEFAULT_ANSWER, NOT_FOUND, TAG
from serving.http.v2.schemas import REQUEST_BODY, InferenceResponse
from serving.interface.answers import count_numbers, encode, run_inference

PATHS = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")

# Compression would hardly make a smaller response shorter.
COMPRESSED_FROM = 1024

_LENGTH_SCHEMA = {"type": "integer", "minimum": 0}

_DESCRIPTION = """\
Send the pixels of images that have the model's own size, as JSON or as binary data after the JSON:

    curl http://127.0.0.1:8000/v2/models/digits-pde/infer -d \\
      '{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0, ..., 255]}]}'

With the datatype BYTES and the shape [N] the binary data are encoded images, each after its length in 4 bytes, little
endian. They are decoded as by /classify; if one cannot be, the request fails.

The response has the probabilities (N, classes) as FP32 and, if `outputs` asks for them, the `features` that the last
layer takes. With the output parameter `classification` = k it has the k best classes of each image as texts
"probability:index:label". If `binary_data` or `binary_data_output` asks for binary data, the content type is
application/octet-stream."""


def operation(path: str) -> dict[str, Any]:
    """Describe one of `PATHS` for the OpenAPI document."""
    parameters = [_path_parameter("model", "a name from /models", "digits-pde")]
    if "{version}" in path:
        parameters.append(_path_parameter("version", "one of the model's versions", "1"))
    parameters.append(_LENGTH_PARAMETER)
    name = path[1:].replace("/", "_").replace("{", "_").replace("}", "_")
    return {
        "tags": [TAG],
        "summary": "Classify pixels",
        "description": _DESCRIPTION,
        "operationId": f"infer_{name}_post",
        "parameters": parameters,
        "requestBody": REQUEST_BODY,
        "responses": {
            "200": {
                "description": "One row for each image",
                "headers": {
                    "Inference-Header-Content-Length": {
                        "description": "the bytes of JSON before the binary data; absent if there are none",
                        "schema": _LENGTH_SCHEMA,
                    }
                },
                "content": {
                    "application/json": {"schema": reference(InferenceResponse)},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            "400": describe_v2_error(
                "The request is wrong",
                RequestError("invalid_request", "the datatype of 'image': expected UINT8 or BYTES, got 'FP32'"),
                RequestError("invalid_request", "the data of 'image': expected integers from 0 to 255, got 256"),
            ),
            "404": NOT_FOUND,
            "413": describe_v2_error("The body is too large", BODY_TOO_LARGE),
            "415": describe_v2_error("Another content encoding", UNSUPPORTED_ENCODING),
            "422": describe_v2_error(
                "An image cannot be decoded, or a query parameter",
                *IMAGE_ERRORS,
                RequestError("invalid_parameter", "unknown query parameter 'version': expected none"),
            ),
            "500": describe_v2_error("The server or the network failed", InternalError()),
            "503": describe_v2_error(
                "The server is at capacity: Retry-After says when to try again", OverloadedError()
            ),
            "504": describe_v2_error("The request ran out of time", DeadlineError()),
            "default": DEFAULT_ANSWER["default"],
        },
    }


def _path_parameter(name: str, description: str, example: str) -> dict[str, Any]:
    schema = {"type": "string", "examples": [example]}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


_LENGTH_PARAMETER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "the bytes of JSON before the binary data; by default, all of the body is JSON",
    "schema": _LENGTH_SCHEMA,
}
SCHEMAS = (InferenceResponse,)


async def infer(request: Request, hold: Hold) -> Response:
    """Answer a request, as `operation` describes it."""
    parse_query(request)
    models, settings = models_of(request), settings_of(request)
    served = models.get(request.path_params["model"], request.path_params.get("version"))
    body, deadline = await read_body(request, hold)
    header = request.headers.get("inference-header-content-length")
    parsing = partial(
        parse_request,
        header_length=header,
        spec=served.spec,
        max_images=settings.max_images,
        outputs=tuple(served.outputs),
    )
    inference = await until(deadline, parse(models.threads, parsing, body, json_length(header, len(body))))
    del body  # free, unless the pixels are part of it
    results = await run_inference(served, inference, deadline)
    accepted = accepted_encoding(request.headers)

    def answer() -> tuple[bytes, dict[str, str]]:
        content, headers = encode_response(inference, served.name, served.version, served.labels, results)
        if accepted and len(content) >= COMPRESSED_FROM:
            content = compress(content, accepted)
            headers["Content-Encoding"] = accepted
        return content, headers

    content, headers = await encode(models.threads, answer, count_numbers(results), deadline)
    hold_answer(hold, len(content))
    return Response(content, headers=headers)
