"""Finds the packages to serve: bundled models, package folders, folders of versions, and folders of these."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from pdeinfer import ModelNotFoundError
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE
from pdeinfer.spec.presets import is_model_name

logger = logging.getLogger(__name__)

UNVERSIONED = "1"

_MAX_NAME = 100  # characters

# Why folders cannot be read.
_Reasons: TypeAlias = dict[Path, str | None]


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
        ModelNotFoundError: the source is none of these or cannot be read. Folders in it that cannot be read are skipped
            with a warning.
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
    unreadable: _Reasons = {}
    if packages := _versions(folder, unreadable):
        yield from packages
        return
    for path in sorted(folder.absolute().iterdir()):  # in "." a relative path could be a bundled model's name
        if _is_package(path, unreadable):
            packages.append((UNVERSIONED, path))
            continue
        try:
            packages += _versions(path, unreadable) if path.is_dir() else []
        except OSError as error:
            unreadable[path] = error.strerror
    # Such as `lost+found` of a mounted volume, which is root's.
    skipped = [f"{path} cannot be read: {reason}" for path, reason in unreadable.items()]
    if not packages:
        expected = f"{source!r} holds no model package: expected a folder in it with a {CARD_FILE}"
        raise ModelNotFoundError("; ".join([expected, *skipped]))
    for problem in skipped:
        logger.warning("skipped a folder: %s", problem)
    yield from packages


def _versions(folder: Path, unreadable: _Reasons) -> list[tuple[str, Path]]:
    """Return the versions in a folder, lowest first; note what looks like one and cannot be read.

    Beside a package this is a version too: loading it fails, which tells why it is not served.
    """
    numbers = [path.absolute() for path in folder.iterdir() if _is_version(path.name)]
    reasons: _Reasons = {}
    packages = [path for path in numbers if _is_package(path, reasons)]
    if packages:
        packages += reasons
    else:
        unreadable.update(reasons)
    return [(path.name, path) for path in sorted(packages, key=lambda path: int(path.name))]


def _is_package(folder: Path, unreadable: _Reasons) -> bool:
    try:
        return (folder / CARD_FILE).is_file()
    except OSError as error:
        unreadable[folder] = error.strerror
        return False


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
