"""Writes the body of an ONNX function in ONNX's text format, with two implementations of the stencils."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

Axis: TypeAlias = Literal["x", "y"]
AXES: tuple[Axis, Axis] = ("y", "x")  # the order of their terms


class Body(ABC):
    """The nodes of a function; an expression that occurs again reuses its node.

    Methods take and return names. Values are (N, C, H, W). Factors are scalars, or one number per channel as
    `channel_factor` returns it. The function's attributes are those of `function.call_attributes`.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __str__(self) -> str:
        return "\n".join(f"{name} = {expression}" for expression, name in self._names.items())

    def node(self, expression: str) -> str:
        """Add a node, such as "Relu(x)", and return its output's name."""
        return self._names.setdefault(expression, f"t{len(self._names)}")

    def constant(self, value: float) -> str:
        """Return a scalar."""
        return self.node(f"Constant <value_float = {float(value)}> ()")

    def integers(self, *values: int) -> str:
        """Return a vector of integers."""
        return self.node(f"Constant <value_ints = {list(values)}> ()")

    def sum(self, *terms: str) -> str:
        """Return the sum, term after term: ONNX Runtime fuses a convolution with the sum that follows it."""
        total, *rest = terms
        for term in rest:
            total = self.node(f"Add({total}, {term})")
        return total

    def product(self, a: str, b: str) -> str:
        """Return a * b."""
        return self.node(f"Mul({a}, {b})")

    def relu(self, value: str) -> str:
        """Return the larger of 0 and the value."""
        return self.node(f"Relu({value})")

    def convolve(self, value: str, kernel: str, bias: str = "", attributes: str = "") -> str:
        """Return the depthwise convolution with a kernel (C, 1, height, width), plus a bias (C,)."""
        attributes = f"group: int = @channels{attributes and ', '}{attributes}"
        return self.node(f"Conv <{attributes}> ({value}, {kernel}{bias and ', '}{bias})")

    @abstractmethod
    def channel_factor(self, vector: str) -> str:
        """Return a vector (C,) as a factor."""

    @abstractmethod
    def one(self) -> str:
        """Return the factor 1."""

    @abstractmethod
    def affine(self, value: str, factor: str, bias: str = "") -> str:
        """Return `factor * value + bias`, the factor one for each channel, the bias (C,)."""

    @abstractmethod
    def difference(self, value: str, axis: Axis, factor: str) -> str:
        """Return `factor * (value(i - 1) - value(i + 1))` along an axis, periodic; the factor as in `affine`."""

    @abstractmethod
    def neighbours(self, value: str, axis: Axis, factor: str, own: float = 0, bias: str = "") -> str:
        """Return `factor * (value(i - 1) + own * value(i) + value(i + 1)) + bias` along an axis, periodic."""


class BlockedBody(Body):
    """For ONNX Runtime on CPUs, whose blocked layout stores blocks of `BLOCK` channels together.

    Only convolutions, sums and products of values run in that layout. Depthwise convolutions therefore do all shifting
    and scaling, and factors are their kernels, (C, 1, 1, 1).
    """

    BLOCK = 8  # 16 on some CPUs

    def channel_factor(self, vector: str) -> str:
        return self.node(f"Reshape({vector}, {self.integers(-1, 1, 1, 1)})")

    def one(self) -> str:
        shape = self.node(f"Shape({self.channel_factor('scale')})")
        return self.node(f"Expand({self.constant(1)}, {shape})")

    def affine(self, value: str, factor: str, bias: str = "") -> str:
        return self.convolve(value, factor, bias)

    def difference(self, value: str, axis: Axis, factor: str) -> str:
        return self._stencil(value, axis, factor, (1, 0, -1))

    def neighbours(self, value: str, axis: Axis, factor: str, own: float = 0, bias: str = "") -> str:
        return self._stencil(value, axis, factor, (1, own, 1), bias)

    def _stencil(self, value: str, axis: Axis, factor: str, taps: tuple[float, float, float], bias: str = "") -> str:
        # Padded columns are slow: a value is extended periodically once per axis, for all of its stencils, by a
        # convolution whose dilation is the length of the axis. A dilation of 2 skips a middle tap of 0.
        extended = self.convolve(
            value,
            self.product(self.one(), self._taps((1, 1, 1), axis)),
            attributes=f"dilations: ints = @period_{axis}, pads: ints = @pads_{axis}",
        )
        before, own, after = taps
        inner, dilation = (taps, 1) if own else ((before, after), 2)
        dilations = [1, dilation] if axis == "x" else [dilation, 1]
        kernel = self.product(factor, self._taps(inner, axis))
        return self.convolve(extended, kernel, bias, f"dilations = {dilations}")

    def _taps(self, taps: Sequence[float], axis: Axis) -> str:
        shape = f"1, 1, 1, {len(taps)}" if axis == "x" else f"1, 1, {len(taps)}, 1"
        return self.node(f"Constant <value = float[{shape}] {{{', '.join(str(float(tap)) for tap in taps)}}}> ()")


class SlicedBody(Body):
    """For other runtimes, and for numbers of channels that do not fill whole blocks."""

    def channel_factor(self, vector: str) -> str:
        return self.node(f"Reshape({vector}, {self.integers(1, -1, 1, 1)})")

    def one(self) -> str:
        return self.constant(1)

    def product(self, a: str, b: str) -> str:
        factors = [factor for factor in (a, b) if factor != self.one()]
        return super().product(a, b) if len(factors) == 2 else (factors or [self.one()])[0]

    def affine(self, value: str, factor: str, bias: str = "") -> str:
        scaled = self.product(value, factor)
        return self.sum(scaled, self.channel_factor(bias)) if bias else scaled

    def difference(self, value: str, axis: Axis, factor: str) -> str:
        before, after = self._shifted(value, axis)
        return self.product(self.node(f"Sub({before}, {after})"), factor)

    def neighbours(self, value: str, axis: Axis, factor: str, own: float = 0, bias: str = "") -> str:
        total = self.sum(*self._shifted(value, axis))
        if own:
            total = self.sum(total, self.product(value, self.constant(own)))
        return self.affine(total, factor, bias)

    def _shifted(self, value: str, axis: Axis) -> tuple[str, str]:
        """Return value(i - 1) and value(i + 1), periodic."""
        dimension = {"y": 2, "x": 3}[axis]
        end = 2**31 - 1
        last, first = self._slice(value, -1, end, dimension), self._slice(value, 0, 1, dimension)
        extended = self.node(f"Concat <axis = {dimension}> ({last}, {value}, {first})")
        return self._slice(extended, 0, -2, dimension), self._slice(extended, 2, end, dimension)

    def _slice(self, value: str, start: int, end: int, dimension: int) -> str:
        bounds = ", ".join(self.integers(number) for number in (start, end, dimension))
        return self.node(f"Slice({value}, {bounds})")
