"""Finds the packages that `--init` and `--teacher` name."""

import os
import shlex

from pdeinfer.errors import ModelNotFoundError, TrainingError
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from pdeinfer.spec.training_record import RECORD_FILE


def load_package(model: str) -> ModelPackage:
    """Return the bundled package of that name, or else the package in that folder.

    Raises:
        TrainingError: it is the folder of a training.
        ModelNotFoundError, ModelPackageError: as `zoo.load` does.
    """
    try:
        return zoo.load(model)
    except ModelNotFoundError as error:
        if not os.path.isfile(os.path.join(model, RECORD_FILE)):  # noqa: PTH113, PTH118  # Path: OSError for a long name
            raise
        command = shlex.join(["pdeinfer", "export", model, "--output", "PACKAGE"])
        raise TrainingError(f"{model} is a training's folder: `{command}` makes a package of it") from error
