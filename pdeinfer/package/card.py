"""The model card: the content of a package's `card.json`."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from pdeinfer.errors import ModelPackageError, PresetError
from pdeinfer.spec.presets import Preset
from pdeinfer.spec.training_record import TrainingRecord
from pdeinfer.spec.values import is_number
from pdeinfer.version import __version__

FORMAT = 1
CARD_FILE = "card.json"

# A relative POSIX path whose parts start with a letter, digit or underscore. This excludes "..", drives and "/".
_FILE_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's SHA-256, in hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ModelPackageError(f"sha256 must be 64 hexadecimal digits, not {self.sha256!r}")
        if not _is_count(self.bytes):
            raise ModelPackageError(f"bytes must be an integer >= 0, not {self.bytes!r}")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The description of a model package.

    Attributes:
        preset: name, input, labels and network.
        parameters: the number of trainable parameters.
        macs: multiply-accumulate operations for one image.
        opset: the ONNX operator set of `model.onnx`.
        training: how the network was trained.
        metrics: what was measured, such as `{"test_accuracy": 0.97}`.
        parity: the comparisons of the exported files with the original, by file.
        variants: what was measured for each reduced precision, such as `{"int8": {"test_accuracy": 0.96}}`.
        files: all other files of the package, by relative POSIX path; `write_card` fills it in.
        created: date and time, ISO 8601, UTC.
        pdeinfer_version: the version that wrote the card.
    """

    preset: Preset
    parameters: int
    macs: int
    opset: int
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    pdeinfer_version: str = __version__

    def __post_init__(self) -> None:
        for name in ("parameters", "macs", "opset"):
            if not _is_count(getattr(self, name)):
                raise ModelPackageError(f"{name} must be an integer >= 0, not {getattr(self, name)!r}")
        for name in ("training", "metrics", "parity", "variants", "files"):
            if not isinstance(getattr(self, name), dict):
                raise ModelPackageError(f"{name} must be an object, not {getattr(self, name)!r}")
        for precision, measured in self.variants.items():
            if not isinstance(measured, dict):
                raise ModelPackageError(f"variants: {precision} must be an object, not {measured!r}")
        for name, measured in (("metrics", self.metrics), *self.variants.items()):
            accuracy = measured.get("test_accuracy")
            if accuracy is not None and not (is_number(accuracy) and 0 <= accuracy <= 1):
                raise ModelPackageError(f"{name}: test_accuracy must be a number from 0 to 1, not {accuracy!r}")
        for name in ("created", "pdeinfer_version"):
            if not isinstance(getattr(self, name), str):
                raise ModelPackageError(f"{name} must be a string, not {getattr(self, name)!r}")
        for name in self.files:
            if not _FILE_NAME.fullmatch(name) or name == CARD_FILE:
                raise ModelPackageError(f"a file's name must be a relative path inside the package, not {name!r}")

    @property
    def training_record(self) -> TrainingRecord | None:
        """The record in `training` and `metrics`; None where the card has none.

        It has an outcome only if `metrics` has the accuracy and the number of test images.

        Raises:
            ModelPackageError: `training` holds something else.
        """
        if not self.training:
            return None
        metrics = {name: value for name, value in self.metrics.items() if value is not None}
        if not {"test_accuracy", "test_images"} <= metrics.keys():
            metrics = {}
        try:
            return TrainingRecord.from_dict({**self.training, **metrics})
        except ValueError as error:
            raise ModelPackageError(
                f"{CARD_FILE}: training and metrics: not the record of a training: {error}"
            ) from error

    def test_accuracy(self, precision: str = "float32") -> float | None:
        """Return the test accuracy, 0..1, that the card states for a precision; None if it states none."""
        measured = self.metrics if precision == "float32" else self.variants.get(precision, {})
        return measured.get("test_accuracy")

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values, with the preset's keys beside its own; `from_dict` is the inverse."""
        values = asdict(self)
        del values["preset"]
        return {"format": FORMAT, **self.preset.to_dict(), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelCard":
        """Return the card described by what `to_dict` returned.

        Raises:
            ModelPackageError: the format is unknown, or a value is missing or impossible.
        """
        if not isinstance(values, Mapping):
            raise ModelPackageError(f"a card must be an object, not {type(values).__name__}")
        if values.get("format") != FORMAT:
            raise ModelPackageError(f"this version reads format {FORMAT}, not {values.get('format')!r}")
        try:
            return cls(
                preset=Preset.from_dict({name: values[name] for name in _PRESET_FIELDS}),
                files={name: FileRecord(**record) for name, record in values["files"].items()},
                variants=values.get("variants", {}),  # missing in older cards
                **{name: values[name] for name in _PLAIN_FIELDS},
            )
        except KeyError as error:
            raise ModelPackageError(f"the key {error} is missing") from error
        except (AttributeError, TypeError) as error:
            raise ModelPackageError(f"files must map names to sha256 and bytes: {error}") from error
        except PresetError as error:
            raise ModelPackageError(str(error)) from error


_PRESET_FIELDS = tuple(entry.name for entry in fields(Preset))
_PLAIN_FIELDS = ("parameters", "macs", "opset", "training", "metrics", "parity", "created", "pdeinfer_version")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
