"""Checks the values of frozen dataclasses, and converts them to JSON and back."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from pdeinfer.errors import PresetError


def use_plain_numbers(spec: Any) -> None:
    """Convert the numbers in a frozen dataclass, such as NumPy's, to int and float, which JSON can hold."""
    for field in fields(spec):
        object.__setattr__(spec, field.name, _plain(getattr(spec, field.name)))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def is_number(value: object) -> bool:
    """Return whether a value is an int or float that a finite float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_positive_int(name: str, value: object) -> None:
    """Raise PresetError unless a value, `name` in errors, is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PresetError(f"{name} must be a positive integer, not {value!r}")


def check_tuple(name: str, value: object) -> None:
    """Raise PresetError unless a value, `name` in errors, is a tuple."""
    if not isinstance(value, tuple):
        raise PresetError(f"{name} must be a tuple, not {value!r}")


def to_dict(value: Any) -> dict[str, Any]:
    """Return a dataclass as a dict of its fields, nested dataclasses included.

    If its class has a `kind`, that comes first: it distinguishes the classes that a field may hold.
    """
    kind = {"kind": value.kind} if hasattr(value, "kind") else {}
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return kind | {name: to_dict(part) if is_dataclass(part) else part for name, part in parts.items()}


def from_tagged_dict(name: str, values: Mapping[str, Any], *classes: Any) -> Any:
    """Make an instance of one of `classes`, chosen by its kind, from the dict that `to_dict` returns.

    Args:
        name: the field's name in errors.

    Raises:
        PresetError: none of the classes has this kind. Errors of the class itself pass through.
        KeyError: there is no kind.
    """
    by_kind = {each.kind: each for each in classes}
    values = dict(values)
    kind = values.pop("kind")
    if not isinstance(kind, str) or kind not in by_kind:
        raise PresetError(f"{name} kind must be one of {tuple(by_kind)}, not {kind!r}")
    return by_kind[kind](**values)
