"""The record of a training: its settings and, once it has finished, its outcome.

Training writes it as RECORD_FILE (the start) and METRICS_FILE (start and outcome), both one flat JSON object. A model
card holds the same values as two objects, `training` and `metrics`; `results/` holds `metrics.json` without the paths
of the machine.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from pdeinfer.spec.presets import Preset

RECORD_FILE = "run.json"
METRICS_FILE = "metrics.json"

StandardName: TypeAlias = Literal["digits", "mnist", "cifar10"]
DatasetName: TypeAlias = Literal[StandardName, "folder"]


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """One split of a folder of images.

    Attributes:
        files: their number.
        sha256: the SHA-256 of their sorted relative paths.
        contents_sha256: the SHA-256 of the SHA-256 of each file, in that order; None in records of earlier versions.
    """

    files: int
    sha256: str | None = None
    contents_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ImagesRecord:
    """A folder of images that a network was trained on.

    Attributes:
        splits: by name: "train", "test" and perhaps "val".
        test_fraction: the part of each class that was drawn at random as "test"; None if the folder has that split.
        validation_fraction: likewise of "val"; None also if the recipe held out the validation images.
        split_method: "path" if the files' paths decided which images were drawn; None if their positions did, as in
            earlier versions, or if none were drawn.
        split_seed: of a draw by position.
        unreadable: images that could not be read and were left out; None if not recorded.
    """

    splits: Mapping[str, SplitRecord]
    test_fraction: float | None = None
    validation_fraction: float | None = None
    split_method: str | None = None
    split_seed: int | None = None
    unreadable: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImagesRecord":
        """Return the record that JSON values describe; unknown keys are ignored.

        Raises:
            ValueError: a value is missing or of another kind.
        """
        splits = _as_object(values.get("splits"), "images.splits")
        known = _known(cls, values)
        known["splits"] = {
            name: _build(SplitRecord, _known(SplitRecord, _as_object(split, f"images.splits.{name}")))
            for name, split in splits.items()
        }
        record: ImagesRecord = _build(cls, known)
        return record


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A trained model: its name, and the SHA-256 of the file that was used."""

    model: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a finished training.

    Attributes:
        model_sha256: the checksum of the `model.keras` that was measured; absent from cards.
        best_epoch: the epoch whose weights were kept. seconds: of all epochs.
        device: "cpu", "gpu:0", "2 x gpu". versions: by package; "backend" is e.g. "jax 0.11.2". Both are those of the
            process that trained the network, the last one if it was resumed.
        parameters: the number of trainable parameters.
        validation_accuracy: at the best epoch, 0..1; None where no images were held out for validation.
        test_accuracy: 0..1. test_images: their number.
        test_loss: cross-entropy of the test images; None where it is not finite or not known.
        zero_fields: for each PDE layer the channels of each learned field that are zero on training images, and the
            layer's "channels" (`pdeinfer.nn.count_zero_fields`); None if not recorded.
        confusion: test images by true class (rows) and predicted class (columns); None where a card leaves it out.
    """

    best_epoch: int
    seconds: float
    device: str
    versions: Mapping[str, str]
    parameters: int
    test_accuracy: float
    test_loss: float | None = None
    test_images: int
    confusion: tuple[tuple[int, ...], ...] | None = None
    validation_accuracy: float | None = None
    model_sha256: str | None = None
    zero_fields: Mapping[str, Mapping[str, int]] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Outcome":
        """Return the outcome in the JSON values of a finished training.

        Raises:
            ValueError: a value is missing.
        """
        known = _known(cls, values)
        if known.get("confusion") is not None:
            rows = known["confusion"]
            if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple) for row in rows):
                raise ValueError(f"confusion: expected rows of numbers, got {rows!r}")
            known["confusion"] = tuple(map(tuple, rows))
        outcome: Outcome = _build(cls, known)
        return outcome


# What a card calls `metrics`; the rest of an outcome is in its `training`.
_CARD_METRICS = ("test_accuracy", "test_loss", "test_images", "validation_accuracy", "confusion")
_RENAMED = {"starts": "initializations"}  # keys of older recipes
_PATHS = ("data_dir", "init_dir", "teacher_source")
_MAX_CARD_CLASSES = 100  # the confusion matrix of more classes might not fit into a card


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """The settings of a training and, once it has finished, its outcome.

    Attributes:
        preset: the name of the preset asked for.
        classifier: the network that is trained: the preset or, for a folder of images, one with its network; None in a
            card, which holds it beside the record.
        recipe: the values of `training.recipes.Recipe`.
        seed: of weights, shuffling and augmentation. precision: a Keras dtype policy.
        data_dir: the folder of the data set; None for a download.
        images: the folder of images; None for a standard data set.
        init: the model whose weights the training started from, or None.
        init_dir: the package of that model.
        git_commit: of the code, where it is known.
        teacher: the model that the network was distilled from, or None.
        teacher_source: a bundled model's name, or the path of the teacher's package or file.
        outcome: None until the training has finished.
    """

    preset: str
    recipe: Mapping[str, Any]
    seed: int
    precision: str
    classifier: Preset | None = None
    data_dir: str | None = None
    images: ImagesRecord | None = None
    init: ModelReference | None = None
    init_dir: str | None = None
    git_commit: str | None = None
    teacher: ModelReference | None = None
    teacher_source: str | None = None
    outcome: Outcome | None = None

    @property
    def dataset(self) -> DatasetName:
        """The data set: a standard one, or "folder"."""
        name: DatasetName = self.recipe["dataset"]
        return name

    def measured(self, sha256: str) -> bool:
        """Return whether the outcome was measured on the `model.keras` with this checksum."""
        return self.outcome is not None and self.outcome.model_sha256 == sha256

    def without_paths(self) -> "TrainingRecord":
        """Return the record without the paths of the machine, for publication."""
        return replace(self, data_dir=None, init_dir=None, teacher_source=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as the JSON values of `run.json` or, with an outcome, of `metrics.json`."""
        values = asdict(self)
        outcome = values.pop("outcome") or {}
        if self.classifier is not None:
            values["classifier"] = self.classifier.to_dict()
        if self.images is not None:
            values["images"] = _without_none(values["images"])
        return {**values, **_without_none(outcome)}

    @classmethod
    def from_dict(cls, values: Any) -> "TrainingRecord":
        """Return the record that the JSON values of a `run.json` or `metrics.json`, new or old, describe.

        Values with a `best_epoch` and a `test_accuracy` are those of a finished training. Unknown keys are ignored.

        Raises:
            ValueError: a value is missing or of another kind.
        """
        known = _known(cls, _as_object(values, "the record"))
        recipe = {_RENAMED.get(name, name): value for name, value in _as_object(known.get("recipe"), "recipe").items()}
        if recipe.get("dataset") not in get_args(DatasetName):
            raise ValueError(
                f"recipe.dataset: expected one of {', '.join(get_args(DatasetName))}, got {recipe.get('dataset')!r}"
            )
        known["recipe"] = recipe
        if known.get("classifier") is not None:
            known["classifier"] = Preset.from_dict(_as_object(known["classifier"], "classifier"))
        if known.get("images") is not None:
            known["images"] = ImagesRecord.from_dict(_as_object(known["images"], "images"))
        for name in ("init", "teacher"):
            if known.get(name) is not None:
                known[name] = _build(ModelReference, _known(ModelReference, _as_object(known[name], name)))
        known["outcome"] = Outcome.from_dict(values) if {"best_epoch", "test_accuracy"} <= values.keys() else None
        record: TrainingRecord = _build(cls, known)
        return record

    def to_card(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the `training` and the `metrics` of a card: no paths, and no checksum, which the card has already."""
        values = self.to_dict()
        for name in ("classifier", "model_sha256", *_PATHS):
            values.pop(name, None)
        metrics = {name: values.pop(name) for name in _CARD_METRICS if name in values}
        if len(metrics.get("confusion", ())) > _MAX_CARD_CLASSES:
            del metrics["confusion"]
        return values, metrics


def _known(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose keys are fields of the class."""
    names = {entry.name for entry in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _build(cls: Any, known: Mapping[str, Any]) -> Any:
    for name, hint in get_type_hints(cls).items():
        if name in known and not _fits(known[name], hint):
            raise ValueError(f"{name}: expected {hint}, got {known[name]!r}")
    try:
        return cls(**known)
    except TypeError as error:  # names the missing arguments
        raise ValueError(str(error).partition("__init__() ")[2] or str(error)) from error


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value is of an annotated type, as far as the type's outermost level goes."""
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint])]
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and float in kinds) or isinstance(value, tuple(kinds))


def _as_object(value: object, name: str) -> Mapping[str, Any]:
    """Return a JSON object, which errors call `name`."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected an object, got {type(value).__name__}")
    return value


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
