"""The Open Inference Protocol (V2) over REST."""

from serving.http.v2.routes import DIRECT, router

__all__ = ["DIRECT", "router"]
