"""The JSON of the Open Inference Protocol (V2), as the OpenAPI document shows it."""

from typing import Any, Literal

from pydantic import Field

from serving.http.examples import NO_SUCH_MODEL
from serving.http.schemas import Schema


class V2Error(Schema):
    """The body of every response under /v2 that is not 200."""

    error: str = Field(
        description="for people; may change",
        examples=[str(NO_SUCH_MODEL)],
    )


class ServerMetadata(Schema):
    """This server and the protocol's extensions that it supports."""

    name: Literal["pdeinfer"] = "pdeinfer"
    version: str
    extensions: tuple[str, ...] = ("binary_tensor_data", "classification", "model_configuration")


class ServerLive(Schema):
    """The server is alive."""

    live: Literal[True] = True


class ServerReady(Schema):
    """The server takes requests."""

    ready: Literal[True] = True


class RepositoryIndexRequest(Schema):
    """Which models to list."""

    ready: bool = Field(
        default=False, strict=True, description="list only models that are ready, as all served ones are"
    )


class IndexedModel(Schema):
    """A version of a served model."""

    name: str = Field(examples=["digits-pde"])
    version: str = Field(examples=["1"])
    state: Literal["READY"] = "READY"
    reason: Literal[""] = ""


class ModelReady(Schema):
    """The model takes requests."""

    name: str = Field(examples=["digits-pde"])
    ready: Literal[True] = True


class TensorMetadata(Schema):
    """An input or output of a model."""

    name: str = Field(examples=["image"])
    datatype: str = Field(examples=["UINT8"])
    shape: tuple[int, ...] = Field(description="-1: the number of images", examples=[[-1, 8, 8, 1]])


class ModelMetadata(Schema):
    """The inputs and outputs of a model."""

    name: str = Field(examples=["digits-pde"])
    versions: tuple[str, ...] = Field(examples=[["1"]])
    platform: Literal["onnxruntime_onnx"] = "onnxruntime_onnx"
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class TensorConfig(Schema):
    """An input or output of a model for one image."""

    name: str = Field(examples=["image"])
    data_type: str = Field(examples=["TYPE_UINT8"])
    dims: tuple[int, ...] = Field(examples=[[8, 8, 1]])


class ModelConfiguration(Schema):
    """A model in the format of Triton's model configuration extension."""

    name: str = Field(examples=["digits-pde"])
    platform: Literal["onnxruntime_onnx"] = "onnxruntime_onnx"
    max_batch_size: int = Field(description="most images in one request", examples=[64])
    input: tuple[TensorConfig, ...]
    output: tuple[TensorConfig, ...]


class OutputTensor(Schema):
    """The probabilities or the best classes of each image, or its features."""

    name: Literal["probabilities", "features"]
    datatype: Literal["FP32", "BYTES"]
    shape: tuple[int, int]
    data: list[float] | list[str] | None = Field(
        default=None, description="in row-major order; absent if it follows as binary data"
    )
    parameters: dict[str, Any] | None = Field(default=None, description="binary_data_size of binary data")


class InferenceResponse(Schema):
    """The outputs of a model."""

    model_name: str
    model_version: str
    id: str | None = Field(default=None, description="as in the request")
    outputs: tuple[OutputTensor, ...]


_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    "name": {"const": "image"},
                    "datatype": {"enum": ["UINT8", "BYTES"]},
                    "shape": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 1},
                        "minItems": 1,
                        "maxItems": 4,
                        "description": "UINT8: images, height, width, channels; BYTES: images",
                    },
                    "data": {
                        "type": "array",
                        "items": {},
                        "description": "integers from 0 to 255, in one list or in nested lists, in row-major order",
                    },
                    "parameters": {
                        "type": "object",
                        "properties": {"binary_data_size": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
        "outputs": {
            "type": "array",
            "maxItems": 2,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"enum": ["probabilities", "features"]},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "binary_data": {"type": "boolean"},
                            "classification": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}

# The request body of an inference, for the OpenAPI document.
REQUEST_BODY = {
    "required": True,
    "description": "JSON. With the header Inference-Header-Content-Length: that many bytes of JSON, then the "
    "pixels. The Content-Encoding may be gzip or deflate.",
    "content": {
        "application/json": {
            "schema": _REQUEST_SCHEMA,
            "example": {
                "id": "42",
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 64, 128, 255]}],
                "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
            },
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
