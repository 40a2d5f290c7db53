"""The server's settings: from flags, then the environment (`PDEINFER_PORT=9000`), then the defaults."""

import argparse
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSettingsSource, NoDecode, SettingsConfigDict

from pdeinfer.session import available_cpus

EPILOG = """\
Every setting is also an environment variable, such as PDEINFER_PORT or PDEINFER_MODELS=digits-pde,mnist-pde.

examples:
  pdeinfer serve
  pdeinfer serve digits-pde ./my-package --port 9000 --threads 4
  curl -F file=@seven.png 'http://127.0.0.1:8000/classify?top_k=3'
"""


class Settings(BaseSettings):
    """What is served, where, with which limits."""

    model_config = SettingsConfigDict(
        env_prefix="PDEINFER_", frozen=True, cli_kebab_case=True, cli_hide_none_type=True, cli_avoid_json=True
    )

    models: CliPositionalArg[Annotated[tuple[str, ...], NoDecode]] = Field(
        default=(), description="bundled models or package folders; the first is the default model; none: all bundled"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; cuda never falls back",
    )
    threads: int | None = Field(
        default=None, ge=1, description="threads of a worker that decode and predict; none: its share of the CPUs"
    )
    max_batch_size: int = Field(default=32, ge=1, description="most images that a model computes together")
    max_delay_ms: float = Field(
        default=0, ge=0, le=10_000, description="how long an image waits for others to compute; 0: takes those there"
    )
    max_body_bytes: int = Field(default=32 * 2**20, ge=1, description="largest request body")
    max_images: int = Field(default=64, ge=1, description="most images in one request")
    max_queue: int = Field(
        default=256, ge=1, description="most images that a model has admitted and not answered; more get a 503"
    )
    request_timeout: float = Field(
        default=30, gt=0, description="seconds to classify a request's images, from its last byte; then it gets a 504"
    )
    max_image_pixels: int = Field(default=32_000_000, ge=1, description="most pixels of one image, before decoding")
    body_timeout: float = Field(default=60, gt=0, description="seconds to send a request's body; then it gets a 408")
    workers: int = Field(default=1, ge=1, description="processes on the port; one that dies is replaced")
    drain_seconds: float = Field(
        default=1, ge=0, description="seconds after SIGTERM in which /readyz says 503 and requests are still accepted"
    )
    shutdown_timeout: int = Field(
        default=30, ge=1, description="seconds after that for the requests in flight to be answered"
    )

    @property
    def worker_threads(self) -> int:
        """The threads of one process."""
        return self.threads or max(1, available_cpus() // self.workers)

    @field_validator("max_queue")
    @classmethod
    def _holds_a_request(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_images", 0):
            raise ValueError(f"Input should be at least max_images, {info.data['max_images']}")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def parse_settings(arguments: Sequence[str], prog: str = "pdeinfer serve") -> Settings:
    """Return the settings from command line flags and the environment.

    Exits like argparse does: with code 0 after --help, with code 2 and a message on a wrong flag or value.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Classify images over HTTP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = CliSettingsSource[argparse.ArgumentParser](Settings, root_parser=parser)
    try:
        return CliApp.run(Settings, cli_args=list(arguments), cli_settings_source=source)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        name = str(problem["loc"][0])
        parser.exit(
            2,
            f"{prog}: {name} (--{name.replace('_', '-')} or PDEINFER_{name.upper()}): "
            f"{problem['msg']}, not {problem['input']!r}\n",
        )
