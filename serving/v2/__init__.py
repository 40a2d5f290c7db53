"""The Open Inference Protocol (V2) over REST."""

from serving.v2.routes import router

__all__ = ["router"]
