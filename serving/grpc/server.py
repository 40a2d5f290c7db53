"""Runs the gRPC server of a worker beside its HTTP server."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from serving.engine.models import Models
from serving.grpc.calls import Calls
from serving.grpc.inbox import Inbox
from serving.grpc.messages import SERVICE
from serving.grpc.service import Service
from serving.grpc.standard import Health, Reflection
from serving.interface.keys import Keys
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Seconds that a message may take to arrive while others wait for its room: one that may hold images, and a small one.
PATIENCE = 2.0
SHORT_PATIENCE = 0.05

SMALL_SECONDS = 2.0  # for a call with a small message to wait for room: those that wait are among `max_connections`

_TICK_SECONDS = 0.1
# Times `max_connections`: 2.5 for the calls that `Calls` admits, the rest for those that it refuses after a delay. gRPC
# itself refuses calls beyond that, and counts them nowhere.
_CALLS_PER_LIMIT = 4
_MAX_STREAMS = 256  # calls of one connection at a time; its client holds back more
_MAX_AGE_SECONDS = 600.0  # then a connection's client makes a new one, and may reach another worker
_HANDSHAKE_SECONDS = 20.0
_PING_SECONDS = 60.0  # without a byte; then the server asks whether the client is still there
_PING_TIMEOUT_SECONDS = 20.0
_MIN_PING_SECONDS = 10.0  # between pings of a client; one that sends more is disconnected

_MAX_MESSAGE_BYTES = 2**31 - 1  # protobuf has no larger messages, and gRPC no larger number


@asynccontextmanager
async def serve_grpc(models: Models, settings: Settings, is_stopping: Callable[[], bool]) -> AsyncIterator[None]:
    """Answer calls on `settings.grpc_port` in a context; at its end, the calls in flight have been answered.

    Args:
        is_stopping: whether no more calls should be accepted; asked a few times a second.
    """
    server = _Server(models, settings)
    await server.start()
    has_ended = asyncio.Event()
    watching = asyncio.create_task(server.watch(lambda: has_ended.is_set() or is_stopping()))
    try:
        yield
    finally:
        has_ended.set()
        await watching


class _Server:
    """A gRPC server that is started again if it fails.

    Args:
        models: the served models.
        settings: the address, the keys and the limits.
    """

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings
        self._calls = Calls(_keys(settings), settings.access_log, settings.max_connections)
        size, timeout = _max_message_bytes(settings), settings.body_timeout
        inbox = Inbox(size, settings.max_total_bytes, timeout, PATIENCE)
        # Services that may need no key have room of their own: their clients must not keep others out of the large one.
        small_inbox = Inbox(size, size, timeout, SHORT_PATIENCE)
        waiting = min(settings.request_timeout, SMALL_SECONDS)
        self._health = Health(self._calls, small_inbox, waiting)
        reflection = Reflection(self._calls, small_inbox, waiting)
        service = Service(models, settings, self._calls, inbox)
        self._handlers = [service.handler(), self._health.handler(), reflection.handler()]
        self._former: set[asyncio.Task[None]] = set()  # servers that failed, while they answer their last calls

    async def start(self) -> None:
        """Accept calls."""
        self._health.set(self._models.ready)
        self._server = grpc.aio.server(
            handlers=self._handlers,
            options=_options(self._settings),
            maximum_concurrent_rpcs=_CALLS_PER_LIMIT * self._settings.max_connections,
        )
        self._server.add_insecure_port(_address(self._settings))
        await self._server.start()

    async def watch(self, is_stopping: Callable[[], bool]) -> None:
        """Keep the server running and its health up to date until it is stopping; then answer the calls in flight."""
        while not is_stopping():
            self._health.set(self._models.ready)
            try:
                has_ended = not await self._server.wait_for_termination(_TICK_SECONDS)
            except Exception as error:  # noqa: BLE001  # from 1.84 on, for a method whose name is not UTF-8
                logger.error("the gRPC server failed, and is started again: %s", error)
                has_ended = True
            if has_ended:
                stopping = asyncio.create_task(self._server.stop(self._settings.shutdown_timeout))
                self._former.add(stopping)
                stopping.add_done_callback(self._former.discard)
                await self.start()
        self._health.set(False)
        self._calls.end()
        await asyncio.gather(self._server.stop(self._settings.shutdown_timeout), *self._former)


def _keys(settings: Settings) -> Keys:
    """Return the accepted keys by prefix of the method's path: as over HTTP, probes and the description may be open."""
    keys = settings.accepted_keys()
    probes = keys if settings.probes_need_key else []
    return Keys(
        {
            "/": keys,
            f"/{SERVICE}/ServerLive": probes,
            f"/{SERVICE}/ServerReady": probes,
            "/grpc.health.": probes,
            "/grpc.reflection.": [],
        }
    )


def _address(settings: Settings) -> str:
    """Return the one address of the host that HTTP listens on too."""
    *_, address = socket.getaddrinfo(settings.host, settings.grpc_port, type=socket.SOCK_STREAM)[0]
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    return f"{host}:{settings.grpc_port}"


def _max_message_bytes(settings: Settings) -> int:
    return min(settings.max_body_bytes, _MAX_MESSAGE_BYTES)


def _options(settings: Settings) -> list[tuple[str, Any]]:
    def milliseconds(seconds: float) -> int:
        return round(1000 * seconds)

    return [
        ("grpc.so_reuseport", 1),  # workers share the port
        ("grpc.max_receive_message_length", _max_message_bytes(settings)),  # compressed or not
        # They do not bound the memory of headers in calls that are not complete yet: see docs/reliability.md.
        ("grpc.max_metadata_size", settings.max_head_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_head_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.http2.bdp_probe", 0),  # it would let connections send megabytes that no call has asked for
        ("grpc.max_connection_idle_ms", milliseconds(settings.keep_alive_timeout)),
        ("grpc.max_connection_age_ms", milliseconds(_MAX_AGE_SECONDS)),
        ("grpc.max_connection_age_grace_ms", milliseconds(settings.body_timeout + settings.request_timeout)),
        ("grpc.server_handshake_timeout_ms", milliseconds(_HANDSHAKE_SECONDS)),
        ("grpc.keepalive_time_ms", milliseconds(_PING_SECONDS)),
        ("grpc.keepalive_timeout_ms", milliseconds(_PING_TIMEOUT_SECONDS)),
        ("grpc.http2.min_ping_interval_without_data_ms", milliseconds(_MIN_PING_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),  # otherwise a client without a call may ping every two hours
    ]
