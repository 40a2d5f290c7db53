"""The values of a graph: their shapes, and the integers among them that set shapes.

A size in a shape is a number, or minus a multiple of the batch size: (-1, 8, 8, 1) is a batch of images. So sizes
multiply and compare as numbers do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer.graph.wire import MAX_RANK, Node, Tensor

Shape: TypeAlias = tuple[int, ...]

MAX_KNOWN = 64
_MAX_SIZE = 2**40


class ShapeError(ValueError):
    """The shape of a result is impossible, or is not known without running the network."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A multiple of the batch size, among `Value.known`."""

    multiple: int


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph.

    Attributes:
        known: its integers, an array of `int` and `Batch` objects; None if they are unknown, or many.
    """

    shape: Shape
    known: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_RANK or any(abs(size) > _MAX_SIZE for size in self.shape):
            raise ShapeError(f"expected at most {MAX_RANK} sizes up to {_MAX_SIZE}, got {self.shape}")
        if sum(size < 0 for size in self.shape) > 1:
            raise ShapeError("the result grows faster than the batch")
        if self.known is not None and self.known.size > MAX_KNOWN:
            object.__setattr__(self, "known", None)

    @classmethod
    def of(cls, tensor: Tensor) -> "Value":
        """Return the value of a tensor in the file."""
        return cls(tensor.shape, None if tensor.values is None else objects(tensor.values).reshape(tensor.shape))

    @property
    def count(self) -> int:
        """How many numbers it has for one image."""
        return abs(math.prod(self.shape))


@dataclass(slots=True)
class Call:
    """A node and the values of its inputs; an absent input is None.

    Attributes:
        terms: how many products or values each number of the result is the sum of; its rule sets it.
        scratch: how many further values the node takes for one image while it runs; its rule sets it.
    """

    node: Node
    inputs: Sequence[Value | None]
    terms: int = 1
    scratch: int = 0

    @property
    def given(self) -> list[Value]:
        """The inputs that are present."""
        return [value for value in self.inputs if value is not None]

    def value(self, index: int = 0) -> Value:
        """Return an input.

        Raises:
            ShapeError: it is absent.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise ShapeError(f"input {index} is missing")
        return value

    def shape(self, index: int = 0) -> Shape:
        """Return the shape of an input."""
        return self.value(index).shape

    def known(self, index: int) -> list[Any]:
        """Return the `int` and `Batch` objects of an input that sets a shape.

        Raises:
            ShapeError: they are not known.
        """
        known = self.value(index).known
        if known is None:
            raise ShapeError(f"input {index} sets a shape, and must depend on weights and shapes alone")
        return list(known.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise ShapeError(f"{name} must be an integer")
        return value

    def integers(self, name: str, index: int | None = None) -> list[int] | None:
        """Return an attribute of integers, or the input that replaced it in later operator sets; None if absent."""
        value = self.node.attributes.get(name)
        if value is None and (index is None or index >= len(self.inputs) or self.inputs[index] is None):
            return None
        values = self.known(index or 0) if value is None else value
        if not isinstance(values, list | tuple) or not all(isinstance(entry, int) for entry in values):
            raise ShapeError(f"{name} must be integers that do not depend on the batch size")
        return [int(entry) for entry in values if isinstance(entry, int)]


def objects(values: Sequence[int | Batch]) -> NDArray[Any]:
    """Return an array for `Value.known`."""
    array = np.empty(len(values), object)
    array[:] = values
    return array
