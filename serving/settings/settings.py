"""All settings of the server: their types, defaults and limits."""

from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    CliSuppress,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pdeinfer.images.limits import MAX_IMAGE_PIXELS, DecodingLimits
from pdeinfer.package.package import Precision
from pdeinfer.runtime.cpus import MAX_THREADS, available_cpus
from serving.settings.sources import PREFIX, Environment, File
from serving.settings.values import (
    MAX_BATCH_SIZE,
    PER_MODEL_EXAMPLE,
    Device,
    KeyFile,
    KeyList,
    ModelSettings,
    ModelSources,
    Numbers,
    Origins,
    PerModel,
    Workers,
)

MIN_DECODING_BYTES = 16 * 2**20
FIRST_DECODING_BYTES = 8 * 2**20  # the memory that an image is first given in a decoding process


class Batching(NamedTuple):
    """How the images of a model are batched, as `Settings` describes these values."""

    max_batch_size: int | None
    max_delay_ms: float
    max_queue: int


class Settings(Numbers, BaseSettings):
    """All settings of `pdeinfer serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
    )

    models: CliPositionalArg[ModelSources] = Field(
        default=(),
        description="bundled models, package folders, folders name/ of versions name/1, name/2, or folders that "
        "contain any of these; NAME=PATH serves a package or its versions under another name; the first is the default "
        "model; without arguments, all bundled models",
    )
    config: Path | None = Field(default=None, description="TOML file of settings")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="port that answers the Open Inference Protocol over gRPC, on the same address; 0 takes a free one; "
        "by default none; needs the extra grpc",
    )
    workers: Workers = Field(
        default="auto",
        description="processes on the port, or auto: one for each CPU, or one on a GPU; a process that dies is "
        "replaced; on a GPU each needs a context and models of its own",
    )
    device: Device = Field(default="auto", description="auto, cpu, cuda or cuda:N; cuda never falls back")
    threads: int | None = Field(
        default=None,
        ge=1,
        le=MAX_THREADS,
        description="threads of a worker that decode and predict; by default its share of the CPUs",
    )
    gpu_mem_limit: int | None = Field(
        default=None,
        ge=1,
        description="bytes of a GPU's memory for each model's weights and values; by default no limit",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BATCH_SIZE,
        description="most images that a model computes together; by default 32 on a CPU, 256 on a GPU",
    )
    max_delay_ms: float = Field(
        default=0, ge=0, le=10_000, description="how long an image waits for others to be computed with; 0: not at all"
    )
    max_queue: int = Field(
        default=256, ge=1, description="most images of a model that wait or are worked on; more get a 503"
    )
    precision: Precision = Field(default="float32", description="float32, or int8 for packages that have an int8 file")
    threshold: float = Field(
        default=0, ge=0, le=1, description="an answer of /classify with a lower probability has the label null"
    )
    per_model: PerModel = Field(
        default_factory=dict,
        description="max_batch_size, max_delay_ms, max_queue, precision and threshold of single models: "
        f"{PER_MODEL_EXAMPLE}",
    )
    load_timeout: float = Field(
        default=120,
        gt=0,
        le=86_400,
        description="seconds to load a model; then the start or the change of models fails",
    )
    request_timeout: float = Field(
        default=30,
        gt=0,
        le=86_400,
        description="seconds to classify a request's images, from its last byte; then it gets a 504",
    )
    body_timeout: float = Field(
        default=60, gt=0, le=86_400, description="seconds to send a request's body; then it gets a 408"
    )
    keep_alive_timeout: int = Field(
        default=75,
        ge=1,
        le=86_400,
        description="seconds that an idle connection stays open; choose more than the proxy in front does",
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="most connections of a worker at a time; one more replaces an idle one, or gets a 503",
    )
    max_head_bytes: int = Field(
        default=16 * 2**10, ge=1024, le=2**20, description="largest head of a request, its line and headers; then a 431"
    )
    max_body_bytes: int = Field(default=32 * 2**20, ge=1, description="largest request body")
    max_total_bytes: int = Field(
        default=96 * 2**20,
        ge=1,
        description="most bytes of all request bodies and large answers that a worker holds; more get a 503",
    )
    max_images: int = Field(default=64, ge=1, description="most images in one request")
    max_image_pixels: int = Field(
        default=MAX_IMAGE_PIXELS,
        ge=1,
        description="most pixels of one image; a JPEG counts at the size it is decoded at",
    )
    max_decoding_bytes: int | None = Field(
        default=None,
        ge=MIN_DECODING_BYTES,
        description="memory of a worker's decoding processes; images wait for it, and one that needs more is refused; "
        "by default 224 MiB, or 32 MiB a thread if that is more",
    )
    max_decoding_seconds: float = Field(
        default=5, gt=0, le=3600, description="CPU seconds to decode one image; one that needs more is refused"
    )
    api_keys: CliSuppress[KeyList] = ()
    api_keys_file: KeyFile = Field(
        default=(), description="file of keys; every request must send one of them; without keys, open to all"
    )
    admin_keys: CliSuppress[KeyList] = ()
    admin_keys_file: KeyFile = Field(
        default=(), description="file of keys that may load and unload models; without keys, there is no /admin"
    )
    probes_need_key: bool = Field(default=False, description="whether the probes need a key, if there are keys")
    metrics_need_key: bool = Field(default=True, description="whether /metrics needs a key, if there are keys")
    cors_origins: Origins = Field(
        default=(),
        description="origins, separated by commas, whose pages may read answers, such as https://example.org; or *",
    )
    access_log: bool = Field(default=False, description="whether every request is logged")
    drain_seconds: float = Field(
        default=1,
        ge=0,
        le=86_400,
        description="seconds after SIGTERM during which /readyz says 503 and requests are still accepted",
    )
    shutdown_timeout: int = Field(
        default=30, ge=1, le=86_400, description="seconds after that for the requests in flight to be answered"
    )

    @property
    def worker_threads(self) -> int:
        """The threads of one process."""
        return self.threads or max(1, available_cpus() // self.num_workers)

    @property
    def num_workers(self) -> int:
        """The processes; "auto" is one, as in an application that runs in another server."""
        return 1 if self.workers == "auto" else self.workers

    @property
    def decoding_bytes(self) -> int:
        """The memory of the decoding processes of one process, in bytes."""
        return self.max_decoding_bytes or max(224 * 2**20, 32 * 2**20 * self.worker_threads, self._least_decoding_bytes)

    @property
    def _least_decoding_bytes(self) -> int:
        return DecodingLimits(bytes=FIRST_DECODING_BYTES).address_space(self.max_body_bytes)

    def keys_of_clients(self) -> list[str]:
        """Return the keys of clients."""
        return [key.get_secret_value() for key in (*self.api_keys, *self.api_keys_file)]

    def keys_of_admins(self) -> list[str]:
        """Return the keys that may load and unload models."""
        return [key.get_secret_value() for key in (*self.admin_keys, *self.admin_keys_file)]

    def accepted_keys(self) -> list[str]:
        """Return the keys of which every request needs one, those of admins included; none: requests need no key."""
        return [*self.keys_of_clients(), *self.keys_of_admins()] if self.keys_of_clients() else []

    def batching(self, model: str) -> Batching:
        """Return how the images of a model are batched."""
        max_batch_size, max_queue = self._value(model, "max_batch_size"), self._value(model, "max_queue")
        largest = max_batch_size and min(max_batch_size, max_queue)  # no more can wait
        return Batching(largest, self._value(model, "max_delay_ms"), max_queue)

    def precision_of(self, model: str) -> Precision:
        """Return the precision in which a model is served."""
        precision: Precision = self._value(model, "precision")
        return precision

    def threshold_of(self, model: str) -> float:
        """Return the least probability of a model's answers."""
        threshold: float = self._value(model, "threshold")
        return threshold

    def _value(self, model: str, name: str) -> Any:
        """Return a setting of a model: its own, or the common one."""
        own = getattr(self.per_model.get(model, ModelSettings()), name)
        return getattr(self, name) if own is None else own

    @model_validator(mode="after")
    def _require_consistent_limits(self) -> Self:
        if self.max_total_bytes < self.max_body_bytes:
            raise ValueError(f"max_total_bytes must be at least max_body_bytes, {self.max_body_bytes}")
        if self.decoding_bytes < self._least_decoding_bytes:
            least = self._least_decoding_bytes
            raise ValueError(f"max_decoding_bytes must be at least {least}, for max_body_bytes {self.max_body_bytes}")
        for model in ("", *self.per_model):
            max_queue = self.batching(model).max_queue
            if max_queue < self.max_images:
                of_model = f" of {model}" if model else ""
                raise ValueError(
                    f"max_queue{of_model} must be at least max_images, {self.max_images}: a request must fit in; "
                    f"got {max_queue}"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls), File(settings_cls)
