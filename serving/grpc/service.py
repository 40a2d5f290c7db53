"""The operations of the protocol."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import grpc.aio

from pdeinfer import __version__
from pdeinfer.package.package import INPUT_NAME
from serving.engine.deadline import until
from serving.engine.models import Models
from serving.engine.served_model import ServedModel
from serving.errors import ModelNotServedError, RequestError, VersionNotServedError
from serving.grpc import messages
from serving.grpc.calls import Calls
from serving.grpc.inbox import Inbox
from serving.grpc.messages import parse
from serving.grpc.request import read_request
from serving.grpc.response import encode_response
from serving.grpc.wire import measure, require_few_values
from serving.interface.answers import MAX_MODEL_NAME, count_numbers, encode, run_inference
from serving.interface.tensors import NUMBERS, PIXELS, refusal
from serving.settings import Settings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What is larger is parsed in a thread, where it does not hold up other calls.
MESSAGE_PARSED_AT_ONCE = 64 * 2**10

_EXTENSIONS = ("classification",)
_PLATFORM = "onnxruntime_onnx"


class Service:
    """Answers the calls of the protocol.

    On the wire a single message is a stream of one. Calls are handled as streams: a call is admitted before its message
    is received, and those whose messages are empty are answered without.

    Args:
        models: the served models.
        settings: the limits.
        calls: admits and observes calls.
        inbox: receives their messages.
    """

    def __init__(self, models: Models, settings: Settings, calls: Calls, inbox: Inbox) -> None:
        self._models = models
        self._settings = settings
        self._calls = calls
        self._inbox = inbox

    def handler(self) -> Any:
        """Return the handler of the service, for `grpc.aio.server`."""
        operations = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelStreamInfer": self._model_stream_infer,
            "RepositoryIndex": self._repository_index,
        }
        handlers = {name: self._unary(name, operation) for name, operation in operations.items()}
        return grpc.method_handlers_generic_handler(messages.SERVICE, handlers)

    def _unary(self, name: str, operation: Callable[[Any], Awaitable[bytes]]) -> Any:
        method = f"/{messages.SERVICE}/{name}"

        async def answer(_: object, context: Any) -> bytes:
            return await self._calls.run(method, context, lambda: operation(context))

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _server_live(self, _: Any) -> bytes:
        return _serialize(messages.ServerLiveResponse(live=True))

    async def _server_ready(self, _: Any) -> bytes:
        return _serialize(messages.ServerReadyResponse(ready=self._models.ready))

    async def _server_metadata(self, _: Any) -> bytes:
        return _serialize(messages.ServerMetadataResponse(name="pdeinfer", version=__version__, extensions=_EXTENSIONS))

    async def _model_ready(self, context: Any) -> bytes:
        request = await self._inbox.receive_only(messages.ModelReadyRequest, context, self._deadline(context))
        try:
            self._find(request.name, request.version)
        except (ModelNotServedError, VersionNotServedError):
            return _serialize(messages.ModelReadyResponse(ready=False))
        return _serialize(messages.ModelReadyResponse(ready=True))

    async def _model_metadata(self, context: Any) -> bytes:
        request = await self._inbox.receive_only(messages.ModelMetadataRequest, context, self._deadline(context))
        served = self._find(request.name, request.version)
        response = messages.ModelMetadataResponse(
            name=served.name, versions=self._models.versions(served.name), platform=_PLATFORM
        )
        spec = served.spec
        response.inputs.add(name=INPUT_NAME, datatype=PIXELS, shape=(-1, spec.height, spec.width, spec.channels))
        for name, size in served.outputs.items():
            response.outputs.add(name=name, datatype=NUMBERS, shape=(-1, size))
        return _serialize(response)

    async def _repository_index(self, context: Any) -> bytes:
        request = await self._inbox.receive_only(messages.RepositoryIndexRequest, context, self._deadline(context))
        if request.repository_name:
            raise refusal("repository_name", "none", request.repository_name)
        response = messages.RepositoryIndexResponse()
        for model in self._models:
            response.models.add(name=model.name, version=model.version, state="READY")
        return _serialize(response)

    async def _model_stream_infer(self, context: Any) -> bytes:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "ModelStreamInfer is not supported: send each request by ModelInfer"
        )
        return b""

    async def _model_infer(self, context: Any) -> bytes:
        max_images = self._settings.max_images
        async with self._inbox.lease() as receive:
            message = await receive(context, self._deadline(context))
            if message is None:
                raise self._inbox.no_message()
            deadline, size = self._deadline(context), len(message)
            measured = await until(deadline, self._run(size, measure, message, max_images))
            served = self._find(measured.model, measured.version)
            spec = served.spec
            require_few_values(measured.value_bytes, max_images * spec.height * spec.width * spec.channels)
            request = await until(deadline, self._run(size, parse, messages.ModelInferRequest, message))
            del message
            inference = await until(
                deadline, self._run(size, read_request, request, spec, max_images, tuple(served.outputs))
            )
            del request  # the images are copies
            results = await run_inference(served, inference, deadline)
        answer = partial(encode_response, inference, served.name, served.version, served.labels, results)
        return await encode(self._models.threads, answer, count_numbers(results), deadline)

    async def _run(self, size: int, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return `function(*args)`, computed in a thread if there are many bytes to read."""
        if size <= MESSAGE_PARSED_AT_ONCE:
            return function(*args)
        return await self._models.threads.run(function, *args)

    def _find(self, name: str, version: str) -> ServedModel:
        """Return a model; an empty version means the highest."""
        if max(len(name), len(version)) > MAX_MODEL_NAME:
            message = f"the name and the version of a model: expected at most {MAX_MODEL_NAME} characters"
            raise RequestError("invalid_request", message)
        return self._models.get(name, version or None)

    def _deadline(self, context: Any) -> float:
        """Return when to give up, on the event loop's clock."""
        seconds = self._settings.request_timeout
        remaining = context.time_remaining()  # until the client gives up
        return asyncio.get_running_loop().time() + (seconds if remaining is None else min(seconds, remaining))


def _serialize(response: Any) -> bytes:
    serialized: bytes = response.SerializeToString()
    return serialized
