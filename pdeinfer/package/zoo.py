"""The bundled model packages, by name."""

import os
from pathlib import Path

from pdeinfer.errors import ModelNotFoundError
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.package import ModelPackage

DEFAULT_MODEL = "digits-pde"

_MODELS = Path(__file__).parents[1] / "models"


def names() -> tuple[str, ...]:
    """Return the names of the bundled models, the default first, the others sorted."""
    found = (card.parent.name for card in _MODELS.glob(f"*/{CARD_FILE}"))
    return tuple(sorted(found, key=lambda name: (name != DEFAULT_MODEL, name)))


def load(model: str | Path) -> ModelPackage:
    """Return the bundled package of that name, or else the package in that folder.

    Raises:
        ModelNotFoundError: it is neither.
        ModelPackageError: the package's card is damaged or of another format.
    """
    if model in names():
        return ModelPackage.read(_MODELS / model)
    if os.path.isfile(Path(model) / CARD_FILE):  # noqa: PTH113  # Path.is_file raises where a name is too long
        return ModelPackage.read(model)
    raise ModelNotFoundError(
        f"{str(model)!r} is neither a bundled model ({', '.join(names()) or 'there are none'}) "
        f"nor a folder with a {CARD_FILE}"
    )
