"""Metrics for Prometheus, in base units, held in memory and added up over all workers."""

import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

# A user's setting for other programs: the client would keep its values in mapped files, and a full disk would kill the
# server. It is read at import.
for _name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
    os.environ.pop(_name, None)

from prometheus_client import (  # noqa: E402
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

# What one process has counted, as JSON: the name, documentation, type and samples (name, labels, value) of each metric.
Snapshot: TypeAlias = list[list[Any]]

_MODEL = ("model", "version")
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REQUESTS = Counter("pdeinfer_requests_total", "Requests answered", ("route", "status"))
REJECTED = Counter("pdeinfer_rejected_requests_total", "Requests answered with an error, by its code", ("reason",))
REQUEST_SECONDS = Histogram(
    "pdeinfer_request_seconds", "From the head of a request to the end of its answer", ("route",), buckets=_SECONDS
)
_QUEUE_SECONDS = Histogram(
    "pdeinfer_queue_seconds",
    "Waiting: of a request for decode and compute, of a costly image for the process that decodes it",
    (*_MODEL, "for"),
    buckets=_SECONDS,
)
_DECODE_SECONDS = Histogram("pdeinfer_decode_seconds", "Decoding one image and making it fit", _MODEL, buckets=_SECONDS)
_INFERENCE_SECONDS = Histogram("pdeinfer_inference_seconds", "Computing one batch", _MODEL, buckets=_SECONDS)
_BATCH_IMAGES = Histogram("pdeinfer_batch_images", "Images computed together", _MODEL, buckets=_IMAGES)
_FAILED_IMAGES = Counter(
    "pdeinfer_failed_images_total",
    "Images with an error in the place of their result, in an answer with status 200, by its code",
    (*_MODEL, "reason"),
)
_ADMITTED_IMAGES = Gauge("pdeinfer_admitted_images", "Images being decoded, waiting or computed", _MODEL)
_MAX_QUEUE_IMAGES = Gauge(
    "pdeinfer_max_queue_images", "Images that all workers together admit: --max-queue of each", _MODEL
)
_MODEL_INFO_NAME = "pdeinfer_model_info"
_MODEL_INFO = Gauge(
    _MODEL_INFO_NAME, "1 for a served model", (*_MODEL, "device", "provider", "pde_layers", "cuda_graphs")
)


class ModelMetrics:
    """The metrics of one version of a model."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self.decode_queue_seconds = _QUEUE_SECONDS.labels(model, version, "decode")
        self.process_queue_seconds = _QUEUE_SECONDS.labels(model, version, "process")
        self.compute_queue_seconds = _QUEUE_SECONDS.labels(model, version, "compute")
        self.decode_seconds = _DECODE_SECONDS.labels(model, version)
        self.inference_seconds = _INFERENCE_SECONDS.labels(model, version)
        self.batch_images = _BATCH_IMAGES.labels(model, version)
        self.admitted_images = _ADMITTED_IMAGES.labels(model, version)
        self.max_queue_images = _MAX_QUEUE_IMAGES.labels(model, version)

    def count_failed_image(self, code: str) -> None:
        """Count an image that has an error in the place of its result."""
        _FAILED_IMAGES.labels(*self._labels, code).inc()

    def set_served(self, device: str, provider: str, pde_layers: str, cuda_graphs: bool, is_served: bool) -> None:
        values = (*self._labels, device, provider, pde_layers, str(cuda_graphs).lower())
        if is_served:
            _MODEL_INFO.labels(*values).set(1)
        else:
            _remove(_MODEL_INFO, *values)

    def remove_gauges(self) -> None:
        """Remove the gauges of a version that is no longer served; its counters and histograms stay."""
        for gauge in (_ADMITTED_IMAGES, _MAX_QUEUE_IMAGES):
            _remove(gauge, *self._labels)


def _remove(gauge: Gauge, *labels: str) -> None:
    with suppress(KeyError):  # of old versions of prometheus_client, if there is no such series
        gauge.remove(*labels)


def snapshot() -> Snapshot:
    """Return what this process has counted so far, without the metrics of Python and of the process."""
    return [
        [
            metric.name,
            metric.documentation,
            metric.type,
            # Without the times of creation, which mean nothing as a sum.
            [[sample.name, sample.labels, sample.value] for sample in metric.samples if sample.name[-8:] != "_created"],
        ]
        for metric in REGISTRY.collect()
        if metric.name.startswith("pdeinfer_")
    ]


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add snapshots up; `pdeinfer_model_info` is 1 if it is 1 in one of them."""
    merged: dict[str, tuple[str, str, dict[Any, float]]] = {}
    for each in snapshots:
        for name, documentation, kind, samples in each:
            values = merged.setdefault(name, (documentation, kind, {}))[2]
            combine = max if name == _MODEL_INFO_NAME else operator.add
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                values[key] = combine(values[key], value) if key in values else value
    return [
        [name, documentation, kind, [[sample, dict(labels), value] for (sample, labels), value in values.items()]]
        for name, (documentation, kind, values) in merged.items()
    ]


def counted(snapshot: Snapshot) -> Snapshot:
    """Return what stays of a snapshot when its process has ended: all but the gauges."""
    return [metric for metric in snapshot if metric[2] != "gauge"]


class _Collected:
    """A snapshot as a collector of prometheus_client."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for name, documentation, kind, samples in self._snapshot:
            metric = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def exposition(workers: Snapshot | None = None) -> bytes:
    """Return metrics in Prometheus' text format: those of the workers, or else those of this process."""
    if workers is None:
        return generate_latest(REGISTRY)
    return generate_latest(_Collected(workers))
