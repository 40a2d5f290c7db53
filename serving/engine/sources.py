"""Finds the packages to serve: bundled models, package folders, folders of versions, and folders of these."""

import os
from collections.abc import Iterator
from pathlib import Path

from pdeinfer import ModelNotFoundError
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE
from pdeinfer.spec.presets import is_model_name

UNVERSIONED = "1"

_MAX_NAME = 100  # characters


def split_name(source: str) -> tuple[str | None, str]:
    """Return the name and the source of NAME=SOURCE; without a NAME, None and the whole text.

    A file or folder whose name has this form is not split.
    """
    name, _, path = source.partition("=")
    is_named = is_model_name(name) and len(name) <= _MAX_NAME and path != "" and not os.path.lexists(source)
    return (name, path) if is_named else (None, source)


def find_packages(source: str) -> Iterator[tuple[str, str | Path]]:
    """Yield the version of every package in a source and its location for `zoo.load`, ordered by folder name.

    Args:
        source: a bundled model's name; a package's folder; a folder `name/` of versions `name/1`, `name/2`, each a
            package; or a folder of such folders.

    Raises:
        ModelNotFoundError: the source is none of these or cannot be read.
    """
    try:
        yield from _find(source)
    except OSError as error:  # such as a missing permission, or a folder removed meanwhile
        raise ModelNotFoundError(f"{error.filename or source} cannot be read: {error.strerror}") from error


def _find(source: str) -> Iterator[tuple[str, str | Path]]:
    folder = Path(source)
    if "=" in source and not os.path.lexists(source):
        raise ModelNotFoundError(
            f"{source!r} is neither a folder nor NAME=PATH: a NAME has 1 to {_MAX_NAME} letters, digits, '.', '_' and "
            "'-', and begins with a letter or a digit"
        )
    if source in zoo.names() or (folder / CARD_FILE).is_file() or not folder.is_dir():
        yield UNVERSIONED, source
        return
    if versions := _versions(folder):
        yield from versions
        return
    is_empty = True
    for path in sorted(folder.absolute().iterdir()):  # in "." a relative path could be a bundled model's name
        if (path / CARD_FILE).is_file():
            is_empty = False
            yield UNVERSIONED, path
        elif path.is_dir():
            for version in _versions(path):
                is_empty = False
                yield version
    if is_empty:
        raise ModelNotFoundError(f"{source!r} holds no model package: expected a folder in it with a {CARD_FILE}")


def _versions(folder: Path) -> list[tuple[str, Path]]:
    numbers = sorted(
        (path for path in folder.iterdir() if _is_version(path.name) and (path / CARD_FILE).is_file()),
        key=lambda path: int(path.name),
    )
    return [(path.name, path) for path in numbers]


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
