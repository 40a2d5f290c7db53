"""Sends OpenTelemetry traces.

FastAPI traces requests, `serving.grpc.calls` calls, `serving.engine.served_model` decoding and computing.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import propagate, trace

logger = logging.getLogger(__name__)

_PROTOCOL = "http/protobuf"

# Those of a call that are the server's fault, by the conventions of OpenTelemetry.
_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

_tracer = trace.get_tracer("pdeinfer")


def span(name: str, attributes: dict[str, str | int] | None = None) -> AbstractContextManager[object]:
    """Return the span of a part of a request, or a cheap stand-in if nobody collects traces."""
    if not _is_collected():
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)


def call_span(method: str, metadata: Mapping[str, str]) -> AbstractContextManager[trace.Span]:
    """Return the span of a gRPC call, in the trace that its metadata names, or a cheap stand-in."""
    if not _is_collected():
        return nullcontext(trace.INVALID_SPAN)
    name = method.removeprefix("/")
    return _tracer.start_as_current_span(
        name,
        propagate.extract(metadata),
        trace.SpanKind.SERVER,
        {"rpc.system.name": "grpc", "rpc.method": name},
        record_exception=False,  # `end_call` tells the status
        set_status_on_exception=False,
    )


def end_call(call: trace.Span, status: str) -> None:
    """Note the status of a call in its span."""
    call.set_attribute("rpc.response.status_code", status)
    if status in _SERVER_ERRORS:
        call.set_status(trace.StatusCode.ERROR)


def _is_collected() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def configure_tracing(*, flushes_at_exit: bool = False) -> None:
    """Send traces to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set and this process sends none yet.

    Args:
        flushes_at_exit: whether the last traces are sent as Python ends, which takes long if the collector has gone.
            Otherwise call `flush_traces`.
    """
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none" or _is_collected():
        return
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):  # the first one set counts
        if protocol := os.environ.get(name, "").strip():
            if protocol != _PROTOCOL:
                logger.warning("no traces are sent: %s is %r, and only %s is supported", name, protocol, _PROTOCOL)
                return
            break
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("sending traces needs OpenTelemetry, which is not installed: pip install 'pdeinfer[otel]'")
        return
    resource = Resource.create({"service.name": "pdeinfer", **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource, shutdown_on_exit=flushes_at_exit)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_traces() -> None:
    """Send the traces that wait to be sent; may take as long as the collector does."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):  # of the SDK
        provider.force_flush()
