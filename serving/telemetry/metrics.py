"""Metrics for Prometheus, in base units, added up over all workers."""

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_MODEL = ("model", "version")
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("pdeinfer_requests_total", "Requests answered", ("route", "status"))
REJECTED = Counter("pdeinfer_rejected_requests_total", "Requests answered with an error, by its code", ("reason",))
REQUEST_SECONDS = Histogram(
    "pdeinfer_request_seconds", "From the head of a request to the end of its answer", ("route",), buckets=_SECONDS
)
_QUEUE_SECONDS = Histogram(
    "pdeinfer_queue_seconds", "Of a request, waiting to be decoded or computed", (*_MODEL, "for"), buckets=_SECONDS
)
_DECODE_SECONDS = Histogram("pdeinfer_decode_seconds", "Decoding one image and making it fit", _MODEL, buckets=_SECONDS)
_INFERENCE_SECONDS = Histogram("pdeinfer_inference_seconds", "Computing one batch", _MODEL, buckets=_SECONDS)
_BATCH_IMAGES = Histogram("pdeinfer_batch_images", "Images computed together", _MODEL, buckets=_IMAGES)
_ADMITTED_IMAGES = Gauge(
    "pdeinfer_admitted_images", "Images being decoded, waiting or computed", _MODEL, multiprocess_mode="livesum"
)
_MODEL_INFO = Gauge(
    "pdeinfer_model_info", "1 for a served model", (*_MODEL, "device", "provider"), multiprocess_mode="livemax"
)


class ModelMetrics:
    """The metrics of one version of a model."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self.decode_queue_seconds = _QUEUE_SECONDS.labels(model, version, "decode")
        self.compute_queue_seconds = _QUEUE_SECONDS.labels(model, version, "compute")
        self.decode_seconds = _DECODE_SECONDS.labels(model, version)
        self.inference_seconds = _INFERENCE_SECONDS.labels(model, version)
        self.batch_images = _BATCH_IMAGES.labels(model, version)
        self.admitted_images = _ADMITTED_IMAGES.labels(model, version)

    def set_served(self, device: str, provider: str, is_served: bool) -> None:
        _MODEL_INFO.labels(*self._labels, device, provider).set(is_served)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
