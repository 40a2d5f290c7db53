"""The server as an application of Ray Serve: `serve run serving.ray_app:app models=digits-pde replicas=4`."""

from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application

from serving.app import create_app
from serving.settings import Settings
from serving.telemetry.logs import log_to_stderr
from serving.telemetry.tracing import configure_tracing


class RaySettings(Settings):
    """The settings of the server, and those of Ray Serve. Settings of processes, ports and connections have no effect.

    `max_queue` also bounds the requests that a replica works on at a time.
    """

    replicas: int = Field(default=1, ge=1, description="processes that classify, each with its own models")
    threads: int = Field(
        default=1, ge=1, le=1024, description="threads of a replica, for which Ray reserves as many CPUs"
    )
    max_queued_requests: int = Field(
        default=256, ge=1, description="most requests that wait for a replica; more get a 503"
    )


def app(arguments: dict[str, Any]) -> Application:
    """Return the application: the server's own, with all its routes, in each replica.

    Args:
        arguments: of `RaySettings`, by name; the others come from the environment and a file, as for `pdeinfer serve`.
            Paths must be absolute, and the same on every node.

    Raises:
        ValidationError: an argument is unknown or has an impossible value.
        SettingsError: an environment variable that begins with PDEINFER_ is unknown.
    """
    settings = RaySettings(**arguments)

    def build() -> FastAPI:
        log_to_stderr("serving")  # Ray logs for itself, and has no handler for this
        configure_tracing(flushes_at_exit=True)
        return create_app(settings)

    deployment = serve.deployment(
        name="pdeinfer",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_queue,
        max_queued_requests=settings.max_queued_requests,
        ray_actor_options={"num_cpus": settings.threads},
    )
    application: Application = deployment(serve.ingress(build)()).bind()
    return application
