"""The protocol's messages, as classes.

Their descriptors are in a pool of our own: a program that also has Triton's client has other messages of these names.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from serving.errors import RequestError

SERVICE = "inference.GRPCInferenceService"

POOL = descriptor_pool.DescriptorPool()


def _load() -> dict[str, Any]:
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("open_inference.binpb").read_bytes())
    for file in files.file:
        POOL.AddSerializedFile(file.SerializeToString())
    return dict(message_factory.GetMessageClassesForFiles([file.name for file in files.file], POOL))


_classes = _load()

ModelInferRequest = _classes["inference.ModelInferRequest"]
ModelInferResponse = _classes["inference.ModelInferResponse"]
ModelMetadataRequest = _classes["inference.ModelMetadataRequest"]
ModelMetadataResponse = _classes["inference.ModelMetadataResponse"]
ModelReadyRequest = _classes["inference.ModelReadyRequest"]
ModelReadyResponse = _classes["inference.ModelReadyResponse"]
RepositoryIndexRequest = _classes["inference.RepositoryIndexRequest"]
RepositoryIndexResponse = _classes["inference.RepositoryIndexResponse"]
ServerLiveResponse = _classes["inference.ServerLiveResponse"]
ServerMetadataResponse = _classes["inference.ServerMetadataResponse"]
ServerReadyResponse = _classes["inference.ServerReadyResponse"]


def parse(kind: Any, message: bytes) -> Any:
    """Return a serialized message of a class; raise RequestError, `invalid_request`, if it is none of that class."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise malformed() from None


def malformed() -> RequestError:
    """Return the error for bytes that are not the message that the method takes."""
    return RequestError("invalid_request", "the message is not of the type that the method takes")
