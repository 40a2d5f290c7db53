"""The body of an ONNX function in ONNX's text format, node by node, and the stencils it is made of."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Axis: TypeAlias = Literal["x", "y"]
AXES: tuple[Axis, Axis] = ("x", "y")


class Body:
    """The nodes of a function; an expression that occurs again is the node that is there already.

    Values are named; they are (N, C, H, W), kernels (C, 1, 1, 1), factors scalars. The function's attributes are those
    of `function.call_attributes`.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __str__(self) -> str:
        return "\n".join(f"{name} = {expression}" for expression, name in self._names.items())

    def node(self, expression: str) -> str:
        """Add a node, such as "Relu(x)", and return its output's name."""
        return self._names.setdefault(expression, f"t{len(self._names)}")

    def constant(self, value: float) -> str:
        """Add a scalar."""
        return self.node(f"Constant <value_float = {float(value)}> ()")

    def integers(self, *values: int) -> str:
        """Add a vector of integers."""
        return self.node(f"Constant <value_ints = {list(values)}> ()")

    def ones(self, channels: str) -> str:
        """Return 1 in the shape of a vector or a kernel."""
        return self.node(f"Expand({self.constant(1)}, {self.node(f'Shape({channels})')})")

    def sum(self, *terms: str) -> str:
        """Return the sum, term after term: a convolution takes the sum that is added to it in."""
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

    def difference(self, value: str, axis: Axis, kernel: str) -> str:
        """Return `kernel * (value(i - 1) - value(i + 1))` along an axis, periodic."""
        return self._stencil(value, axis, kernel, (1, 0, -1))

    def neighbours(self, value: str, axis: Axis, kernel: str, own: float = 0, bias: str = "") -> str:
        """Return `kernel * (value(i - 1) + own * value(i) + value(i + 1)) + bias` along an axis, periodic."""
        return self._stencil(value, axis, kernel, (1, own, 1), bias)

    def _stencil(self, value: str, axis: Axis, kernel: str, taps: tuple[float, float, float], bias: str = "") -> str:
        before, own, after = taps
        # A middle tap of 0 is left out by a dilation of 2.
        dilation, inner = (1, taps) if own else (2, (before, after))
        inner_kernel = self.product(kernel, self._taps(inner, axis))
        if axis == "x":
            # ONNX Runtime computes padded columns one at a time, so it is done once for all stencils of a value: the
            # width as dilation gives the value between its last column and its first.
            extended = self.convolve(
                value,
                self.product(self.ones(kernel), self._taps((1, 1, 1), "x")),
                attributes="dilations: ints = @period_x, pads: ints = @pads_x",
            )
            return self.convolve(extended, inner_kernel, bias, f"dilations = [1, {dilation}]")
        # Padded rows cost nothing: the height - 1 as dilation sees from each edge the opposite one, and else nothing.
        if before == after:
            wrap = self.node("Constant <value_floats: floats = @wrap_y> ()")
            wrap = self.node(f"Reshape({wrap}, {self.integers(1, 1, 3, 1)})")
        else:
            wrap = self._taps((after, 0, before), "y")
        return self.sum(
            self.convolve(value, inner_kernel, bias, f"dilations = [{dilation}, 1], pads = [1, 0, 1, 0]"),
            self.convolve(
                value, self.product(kernel, wrap), attributes="dilations: ints = @period_y, pads: ints = @pads_y"
            ),
        )

    def _taps(self, taps: Sequence[float], axis: Axis) -> str:
        shape = f"1, 1, 1, {len(taps)}" if axis == "x" else f"1, 1, {len(taps)}, 1"
        return self.node(f"Constant <value = float[{shape}] {{{', '.join(str(float(tap)) for tap in taps)}}}> ()")
