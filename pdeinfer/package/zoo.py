"""The bundled model packages, and how a model is named.

A `str` and a `Path` of the same spelling name the same model: a bundled model's name means that model, anything else is
the path of a package's folder. `"./digits-pde"` or an absolute path reaches a folder in the working directory that has
the name of a bundled model. `Path("./digits-pde")` does not: `Path` drops the `./`.
"""

import os
from pathlib import Path

from pdeinfer.errors import ModelNotFoundError
from pdeinfer.package.card import CARD_FILE
from pdeinfer.package.package import ModelPackage

DEFAULT_MODEL = "digits-pde"

_MODELS = Path(__file__).parents[1] / "models"


def names() -> tuple[str, ...]:
    """Return the names of the bundled models: the default first, the others sorted."""
    found = (card.parent.name for card in _MODELS.glob(f"*/{CARD_FILE}"))
    return tuple(sorted(found, key=lambda name: (name != DEFAULT_MODEL, name)))


def load(model: str | os.PathLike[str]) -> ModelPackage:
    """Return the bundled package of that name, or else the package in that folder.

    Raises:
        ModelNotFoundError: it is neither a bundled name nor a folder with a card.
        ModelPackageError: the card is damaged or of another format.
        TypeError: it is neither a string nor a path.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"a model must be a name, a path or a ModelPackage, not {type(model).__name__}")
    name = os.fspath(model)
    if name in names():
        return ModelPackage.read(_MODELS / name)
    if os.path.lexists(Path(name) / CARD_FILE):  # False, and no error, if the name is too long
        return ModelPackage.read(name)
    raise ModelNotFoundError(
        f"{name!r} is neither a bundled model ({', '.join(names()) or 'there are none'}) "
        f"nor a folder with a {CARD_FILE}"
    )


def unambiguous_path(folder: str | os.PathLike[str]) -> str:
    """Return a folder's path, spelled as `load` takes it for no bundled model."""
    path = os.fspath(folder)
    return os.path.join(".", path) if path in names() else path  # noqa: PTH118  # Path drops the "."


def reference_to(package: ModelPackage) -> str:
    """Return what `load` takes to read a package again, in any process: a bundled name or an absolute path."""
    path = package.path.resolve()
    return path.name if path.parent == _MODELS.resolve() else str(path)
