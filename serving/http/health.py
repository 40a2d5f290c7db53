"""Probes and metrics. They ignore query parameters: monitors add their own."""

import asyncio

from fastapi import APIRouter, Request, Response

from serving.errors import NotReadyError
from serving.http.openapi import describe_error
from serving.http.schemas import Health
from serving.http.state import models_of, read_metrics
from serving.telemetry import metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def get_metrics(request: Request) -> Response:
    workers = await read_metrics(request)
    # In a thread: there may be many models.
    return Response(await asyncio.to_thread(metrics.exposition, workers), media_type=metrics.CONTENT_TYPE)


@router.get("/healthz", summary="Whether the server is alive")
async def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    summary="Whether models are served and the server is not stopping",
    responses={503: describe_error("Send requests elsewhere", NotReadyError())},
)
async def readyz(request: Request) -> Health:
    if not models_of(request).ready:
        raise NotReadyError
    return Health()
