"""What a training is started with, as its `run.json` records it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pdeinfer.spec.presets import Preset
from training.recipes import Recipe


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training's result, beside the versions of the software.

    Attributes:
        preset: the name of the preset asked for.
        classifier: the network that is trained: that preset or, of one's own images, one with its network.
        recipe: how it is trained. seed: of weights, shuffling and augmentation. precision: a Keras dtype policy.
        data_dir: where the data set was read from, or None for a download.
        images: of one's own images, what `pdeinfer.datasets.ImageFolder.record` tells, and how many are unreadable.
        init: the name of the model whose weights it starts from, and the checksum of its file; or None.
        init_dir: the package of that model.
        teacher: the name of the teacher that it is distilled from, and the checksum of its file; or None.
        teacher_source: the teacher's name, folder or file.
        git_commit: of the code, where it is known.
    """

    preset: str
    classifier: Preset
    recipe: Recipe
    seed: int
    precision: str
    data_dir: str | None
    images: dict[str, Any] | None
    init: dict[str, str] | None
    init_dir: str | None
    git_commit: str | None
    teacher: dict[str, str] | None = None
    teacher_source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values; `from_dict` is the inverse."""
        return {**asdict(self), "classifier": self.classifier.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Return the settings that `to_dict` described.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, unknown or impossible.
        """
        recipe, classifier = Recipe(**values["recipe"]), Preset.from_dict(values["classifier"])
        return cls(**{**values, "recipe": recipe, "classifier": classifier})
