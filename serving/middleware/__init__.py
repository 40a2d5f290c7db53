"""ASGI middleware that every request passes: limits, keys, security headers, ids and metrics."""
