"""What every call goes through: its key, its id, its errors, and the records and the trace of it."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import unquote

import grpc.aio

from serving.errors import DeadlineError, InternalError, OverloadedError, RequestError, ServingError, StoppingError
from serving.interface.keys import NEEDS_KEY, Keys
from serving.interface.pace import Pace
from serving.interface.request_id import request_id_for
from serving.interface.statuses import STATUSES
from serving.telemetry import metrics
from serving.telemetry.logs import request_id
from serving.telemetry.requests import record_request
from serving.telemetry.tracing import call_span, end_call

logger = logging.getLogger(__name__)

T = TypeVar("T")

# gRPC tells the server a deadline that may be a hundredth later than the client's. The client then cancels before it.
_ROUNDED = 0.01
_LATENCY_SECONDS = 0.05

_MAX_DETAILS = 1024  # characters: gRPC sends them in a header

# The status of an error, by its status over HTTP.
_STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Calls:
    """Admits, observes and ends calls.

    Args:
        keys: the accepted keys, by prefix of the method's path.
        access_log: whether every call is logged.
        max_calls: the most at a time that need a key, and as many that need none: clients without a key cannot keep the
            others out. Calls that go on until their clients end them are counted apart, with a quarter of that.
    """

    def __init__(self, keys: Keys, access_log: bool, max_calls: int) -> None:
        self._keys = keys
        self._access_log = access_log
        self._limits = {False: max_calls, True: max(1, max_calls // 4)}  # by whether calls are endless
        self._counts: Counter[tuple[bool, bool]] = Counter()  # by whether calls are endless, and need a key
        self._pace = Pace()
        self._endless: set[asyncio.Task[Any]] = set()
        self._is_ending = False

    def end(self) -> None:
        """End the calls that would go on until their clients end them, now and from now on."""
        self._is_ending = True
        for task in self._endless:
            task.cancel()

    async def run(
        self, method: str, context: Any, answer: Callable[[], Awaitable[T]], *, is_endless: bool = False
    ) -> T:
        """Return the answer to a call that has a key; give a call that fails its status; count, time, log and trace it.

        Args:
            method: its path.
            context: as `grpc.aio` makes it.
            answer: computes the answer; an error of it must not be kept, as its frames hold the call's message.
            is_endless: whether the call goes on until its client or `end` ends it.
        """
        started = time.perf_counter()
        client = host_of(context)
        metadata = dict(context.invocation_metadata())
        current_id = request_id_for(str(metadata.get("x-request-id", "")))
        request_id.set(current_id)
        context.set_trailing_metadata((("x-request-id", current_id),))
        task = cast(asyncio.Task[Any], asyncio.current_task())
        if is_endless:
            self._endless.add(task)
        outcome = "CANCELLED"
        timeout = context.time_remaining()
        with call_span(method, metadata) as span:
            try:
                result = await self._answer(method, metadata, context, answer, is_endless, timeout)
                outcome = "OK"
                return result
            finally:
                self._endless.discard(task)
                code = context.code()
                outcome = code.name if code else outcome
                end_call(span, outcome)
                record_request(
                    method,
                    outcome,
                    time.perf_counter() - started,
                    is_logged=self._access_log,
                    method="gRPC",
                    path=method,
                    client=client,
                )

    async def _answer(
        self,
        method: str,
        metadata: Mapping[str, Any],
        context: Any,
        answer: Callable[[], Awaitable[T]],
        is_endless: bool,
        timeout: float | None,
    ) -> T:
        """Return the answer to a call that has a key, or give the call the status of its error."""
        try:
            if not self._keys.admit(method, _key(metadata, "authorization"), _key(metadata, "x-api-key")):
                raise RequestError("unauthorized", NEEDS_KEY)
            with self._counted(is_endless, self._keys.are_needed(method)):
                return await answer()
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise  # the call has its status, or its client has gone
        except asyncio.CancelledError:  # by the client, at its deadline, or by `end`
            if is_endless and self._is_ending:
                error: ServingError = StoppingError()
            elif not is_endless and _is_over(context, timeout):
                error = DeadlineError()
            else:
                raise
        except ServingError as caught:
            error = caught
            error.__traceback__ = None
        except Exception:
            logger.exception("the server failed to answer a call")
            error = InternalError()
        return await self._abort(context, error)

    @contextmanager
    def _counted(self, is_endless: bool, needs_key: bool) -> Iterator[None]:
        """Count a call while it is answered, or raise OverloadedError."""
        kind = is_endless, needs_key
        if self._counts[kind] >= self._limits[is_endless]:
            raise OverloadedError
        self._counts[kind] += 1
        try:
            yield
        finally:
            self._counts[kind] -= 1

    async def _abort(self, context: Any, error: ServingError) -> NoReturn:
        metrics.REJECTED.labels(error.code).inc()
        if isinstance(error, OverloadedError):
            context.set_trailing_metadata((*context.trailing_metadata(), ("grpc-retry-pushback-ms", "1000")))
            await asyncio.sleep(self._pace.delay())
        details = f"{error.code}: {error}"
        await context.abort(_STATUSES[STATUSES[error.code]], details[:_MAX_DETAILS])
        raise AssertionError  # `abort` raises


def _is_over(context: Any, timeout: float | None) -> bool:
    """Return whether a call has reached its client's deadline, which was `timeout` seconds away when it began."""
    return timeout is not None and context.time_remaining() <= _ROUNDED * timeout + _LATENCY_SECONDS


def _key(metadata: Mapping[str, Any], name: str) -> bytes:
    return str(metadata.get(name, "")).encode("utf-8", "surrogateescape")


def host_of(context: Any) -> str:
    """Return the address of a call's client, whose peer is "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000"."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
