"""Counts, times and logs requests, whatever answered them."""

import logging

from serving.telemetry import metrics

access_logger = logging.getLogger("serving.access")


def record_request(
    route: str,
    outcome: str,
    seconds: float,
    *,
    is_logged: bool,
    method: str | None,
    path: str | None,
    client: str | None,
) -> None:
    """Record a request that has ended.

    Args:
        route: the path of the route, not of the request: clients must not be able to create labels.
        outcome: the status of its answer, or "disconnected" if the client left before its end.
        seconds: from its head to the end of its answer.
        is_logged: whether it belongs in the access log, with its method, its path and the address of its client; None
            where one is not known.
    """
    metrics.REQUESTS.labels(route, outcome).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    if is_logged:
        entries = {"method": method, "path": path, "status": outcome, "client": client, "seconds": round(seconds, 6)}
        known = {name: value for name, value in entries.items() if value is not None}
        access_logger.info("request", extra={"fields": known})
