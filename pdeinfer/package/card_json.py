"""Parses the text of a card into plain JSON values, each of limited size, before anything interprets them."""

import json
import sys
from typing import Any, NoReturn

from pdeinfer.errors import ModelPackageError

MAX_CARD_BYTES = 1 << 20

_MAX_DEPTH = 16  # cards have 7 levels
_MAX_CHARACTERS = 10_000
_MAX_NUMBER = sys.float_info.max  # as in a preset


def parse_card(content: bytes) -> Any:
    """Return the JSON value in UTF-8 text.

    Raises:
        ModelPackageError: the text is not JSON, a key is repeated, a string is too long or no Unicode text, a number is
            too large or not finite, or a value is nested too deeply.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_reject_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ModelPackageError(f"not JSON: {error}") from error
    _check(value)
    return value


def _check(value: Any, key: str = "", depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ModelPackageError(f"expected at most {_MAX_DEPTH} levels of nesting, got more")
    if isinstance(value, dict):
        for name, entry in value.items():
            _check_text(name)
            _check(entry, name, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            _check(entry, key, depth + 1)
    elif isinstance(value, str):
        _check_text(value)
    elif value is not None and not abs(value) <= _MAX_NUMBER:  # 1e400 is read as infinity
        raise ModelPackageError(f"{key or 'a card'}: expected numbers up to {_MAX_NUMBER:.1e}, got {value!s:.40}")


def _check_text(text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise ModelPackageError(f"expected strings of at most {_MAX_CHARACTERS} characters, got {len(text)}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ModelPackageError(f"expected Unicode text, got half of a surrogate pair: {text!r}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key!r} is repeated")
        values[key] = value
    return values


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
