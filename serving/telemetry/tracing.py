"""Sends OpenTelemetry traces: FastAPI traces requests, `serving.engine.served_model` decoding and computing."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import trace

logger = logging.getLogger(__name__)

_tracer = trace.get_tracer("pdeinfer")


def span(name: str, attributes: dict[str, str | int] | None = None) -> AbstractContextManager[object]:
    """Return the span of a part of a request, or a cheap stand-in if nobody collects traces."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)


def configure_tracing() -> None:
    """Send traces to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set."""
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("sending traces needs OpenTelemetry, which is not installed: pip install 'pdeinfer[otel]'")
        return
    resource = Resource.create({"service.name": "pdeinfer", **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource)  # flushes when the process ends
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_traces() -> None:
    """Send the traces that wait to be sent; may take as long as the collector does."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):  # of the SDK
        provider.force_flush()
