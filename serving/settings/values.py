"""The types of settings: each reads a value as flags, variables, files and callers give it, or refuses it."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import NoDecode

from pdeinfer.package.package import Precision
from pdeinfer.runtime.device import is_device

MAX_WORKERS = 1024
MAX_BATCH_SIZE = 4096  # every model computes a batch of its largest size once, at its start
PER_MODEL_EXAMPLE = '{"mnist-pde": {"max_delay_ms": 2}}'

# An origin as browsers write it in the header Origin. A setting in another spelling would never match.
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Numbers(BaseModel):
    """Settings whose numbers are not booleans, which pydantic would read as 1 and 0."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("expected a number")
        return value


class ModelSettings(Numbers):
    """Settings of one model that differ from those of the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision | None = None
    threshold: float | None = Field(default=None, ge=0, le=1)
    max_batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH_SIZE)
    max_delay_ms: float | None = Field(default=None, ge=0, le=10_000)
    max_queue: int | None = Field(default=None, ge=1)


def _require_device(value: str) -> str:
    if not is_device(value):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return value


def _split_at_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_models(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _require_model(value: str) -> str:
    if not value.strip():  # such as "$PACKAGE" if that is not set; without models, all would be served
        raise ValueError("expected a model's name or its folder")
    return value


def _split_keys(value: object) -> object:
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        raise ValueError("expected keys separated by commas, such as first,second: no brackets and no quotes")
    keys = _split_at_commas(value)
    if keys == []:  # without a key, the server would be open to all; the default is a tuple
        raise ValueError("holds no key")
    if isinstance(keys, list | tuple):  # HTTP headers carry no white space at either end
        return [key.strip() if isinstance(key, str) else key for key in keys]
    return keys


def _read_lines(value: object) -> object:
    """Return the lines of the named file, without empty lines and comments."""
    if value == ():  # the default
        return value
    if not isinstance(value, str | Path):
        raise ValueError(f"expected the path of one file, not a {type(value).__name__}")
    try:
        text = Path(value).read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', 'not UTF-8 text')}") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
    if not lines:
        raise ValueError("holds no key")
    return lines


def _require_printable_ascii(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("expected printable ASCII: browsers and other clients encode other characters differently")
    return key


def _read_workers(value: object) -> object:
    try:
        count = int(value) if isinstance(value, str) and value != "auto" else value
    except ValueError:
        count = 0
    if count != "auto" and not (isinstance(count, int) and 1 <= count <= MAX_WORKERS):
        raise ValueError(f"expected auto or a number from 1 to {MAX_WORKERS}")
    return count


def _require_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        found = _ORIGIN.fullmatch(origin)
        port = found["port"] if found else None
        is_valid = found and not (port and (port == _DEFAULT_PORTS.get(found["scheme"]) or int(port) > 65_535))
        if origin != "*" and not is_valid:
            raise ValueError(
                "expected an origin as browsers send it, such as https://example.org or http://localhost:3000: "
                "lower case, no path, no slash at the end, no default port; or *"
            )
    return value


def _read_per_model(value: object) -> object:
    try:
        # The values of a flag that is repeated come joined by commas.
        found = json.loads(f"[{value}]") if isinstance(value, str) else [value]
    except ValueError:
        found = [None]
    merged: dict[str, Any] = {}
    for models in found:
        if not isinstance(models, dict) or not all(isinstance(own, dict | ModelSettings) for own in models.values()):
            raise ValueError(f"expected settings by model, such as {PER_MODEL_EXAMPLE}")
        for name, own in models.items():  # a repeated flag may name a model twice
            merged[name] = {**merged[name], **own} if name in merged else own
    return merged


Device = Annotated[str, AfterValidator(_require_device)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_read_workers)]
ModelSource = Annotated[str, AfterValidator(_require_model)]
ModelSources = Annotated[tuple[ModelSource, ...], NoDecode, BeforeValidator(_split_models)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas), AfterValidator(_require_origins)]
Key = Annotated[SecretStr, Field(min_length=1), AfterValidator(_require_printable_ascii)]
KeyList = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_split_keys)]
KeyFile = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_read_lines)]
PerModel = Annotated[dict[str, ModelSettings], NoDecode, BeforeValidator(_read_per_model)]
