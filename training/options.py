"""The options of a training, once its arguments are understood."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.network_choice import NetworkChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What `pdeinfer train` was asked for; None where nothing was said.

    Attributes:
        source: the argument SOURCE, as it was given.
        network: of a new training; a resumed one has its own.
        recipe: the given values of a `training.recipes.Recipe`.
        image_folder: the folder of images to train on; None: a standard data set.
        data_dir: `image_folder`, or the folder of the standard data set.
        out: the training's folder.
        others: those of the command line.
    """

    source: str | None
    network: NetworkChoice
    recipe: Mapping[str, Any]
    image_folder: Path | None
    data_dir: Path | None
    out: Path
    image_size: tuple[int, int] | None
    isolate: bool
    preset_file: Path | None
    name: str | None
    teacher: str | None
    seed: int | None
    precision: str | None
    resume: bool
    device: str | None
    data_parallel: bool
    tensorboard: bool
    callbacks: Sequence[str]

    def resume_command(self) -> str:
        """Return the command that resumes the training.

        Its folder records the other options, and where data and teacher were at the start.
        """
        flags = {"isolate": self.isolate, "tensorboard": self.tensorboard, "data-parallel": self.data_parallel}
        command = ["pdeinfer", "train", *([] if self.source is None else [self.source])]
        command += ["--out", str(self.out), "--resume", *(f"--{flag}" for flag, is_set in flags.items() if is_set)]
        command += [] if self.device is None else ["--device", self.device]
        command += [part for reference in self.callbacks for part in ("--callback", reference)]
        if self.resume:
            moved = {"--data-dir": self.data_dir, "--teacher": self.teacher}
            command += [part for flag, path in moved.items() if path is not None for part in (flag, str(path))]
        return shlex.join(command)
