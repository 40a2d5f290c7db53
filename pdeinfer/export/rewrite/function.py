"""The ONNX function `pdeinfer.GlobalLayer`: a PDE layer with its final batch normalisation and relu.

With the operands of `operands`, the differences and neighbours of `body`, L = 1 + 2 Bx + 2 By and s = 2 dt, the scheme
(see `pdeinfer.pde`) is

    H[k+1] = (Ax difference_x(H[k]) + Ay difference_y(H[k]) + 2 Bx neighbours_x(H[k]) + 2 By neighbours_y(H[k])
              + E H[k] + 2 H[k-1] + s f) / L - H[k-1]
    E = difference_x(Ax) + difference_y(Ay)

Of the formulations that were tried, this one ran fastest (docs/decisions/0008). ONNX Runtime fuses a convolution with
the sum that follows it, so a convolution is added last and nothing is subtracted. What depends only on weights is
computed when the file is loaded.
"""

from typing import Any

from pdeinfer.export.rewrite.body import AXES, Axis, BlockedBody, Body, SlicedBody
from pdeinfer.export.rewrite.operands import OPERANDS, is_convolution
from pdeinfer.spec.pde_spec import PdeSpec

DOMAIN = "pdeinfer"
NAME = "GlobalLayer"
PADDED = "pads = [1, 1, 1, 1]"  # of a field's convolution
VERSION = 2  # version 1 returned (N, H, W, C)


def global_layer_function(spec: PdeSpec, opset: int, *, blocked: bool) -> Any:
    """Return the `onnx.FunctionProto` of every PDE layer with this spec; its calls differ in operands and attributes.

    Args:
        blocked: write it for ONNX Runtime's blocked layout (see `body.BlockedBody`).
    """
    import onnx.parser

    body = BlockedBody() if blocked else SlicedBody()
    result = _Layer(body, spec).result()
    attributes = ", ".join(call_attributes(spec, 1, 1, 1))
    return onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{NAME} <{attributes}> ({', '.join(OPERANDS)}) => ({result})\n{{\n{body}\n}}"
    )


def count_nodes(spec: PdeSpec, *, blocked: bool) -> int:
    """Return the number of nodes in the function of `global_layer_function`."""
    body = BlockedBody() if blocked else SlicedBody()
    _Layer(body, spec).result()
    return len(str(body).splitlines())


def call_attributes(spec: PdeSpec, height: int, width: int, channels: int) -> dict[str, Any]:
    """Return the attributes of a call: those that the operator reads, then those of the body.

    The operator reads `num_steps`, `source` and `signed_velocity`, which is 1 for a linear velocity and otherwise
    absent. It matters only where the velocity is a convolution (see `operands`).
    """
    return {
        "num_steps": spec.num_steps,
        "source": 0.0 if spec.source is None else 2 * spec.dt,
        **({"signed_velocity": 1} if spec.velocity_activation == "linear" else {}),
        "channels": channels,
        "period_x": [1, width],
        "pads_x": [0, width + 1] * 2,
        "period_y": [height, 1],
        "pads_y": [height + 1, 0] * 2,
    }


class _Layer:
    """Writes the nodes of a PDE layer: first what does not depend on the step, then the steps."""

    def __init__(self, body: Body, spec: PdeSpec) -> None:
        self._body, self._spec = body, spec
        self._input = self._transposed("h")
        self._scale, self._one = body.channel_factor("scale"), body.one()
        # With one step, the final affine map is folded in: scale into all kernels, shift into the biases of terms that
        # add up to L.
        self._is_single = spec.num_steps == 1
        self._factor, self._shift = (self._scale, "shift") if self._is_single else (self._one, "")
        self._previous = body.constant(1)  # the factor of H[k-1] beside s f
        self._spread: dict[Axis, str] = {}  # 2 Bx and 2 By, fields
        self._constant_spread: dict[Axis, str] = {}  # or scalars
        if isinstance(spec.diffusivity, float | int):
            two = body.constant(2)
            self._constant_spread = {axis: body.product(two, f"diffusion_{axis}") for axis in AXES}
            denominator = body.sum(body.constant(1), *self._constant_spread.values())
            self._factor = body.node(f"Div({self._factor}, {denominator})")
            self._previous = body.node(f"Sub({two}, {denominator})")
        elif spec.diffusivity is not None:
            self._spread = self._numbers("diffusion", spec.diffusivity, spec.diffusivity_activation, 2)
            ones = body.node(f"Expand({body.constant(1)}, {body.node('Shape(shift)')})")
            self._denominator = body.sum(self._spread["y"], body.affine(self._spread["x"], self._one, ones))
        self._source = self._input  # f
        if spec.source == "depthwise":
            self._source = body.relu(body.convolve(self._input, "source", "source_bias", PADDED))
        elif spec.source not in (None, "input"):
            self._source = self._transposed("source")
        self._velocity: dict[Axis, str] = {}
        if spec.velocity is not None:
            self._velocity = self._numbers("courant", spec.velocity, spec.velocity_activation, 1)
            differences = [body.difference(self._velocity[axis], axis, self._factor) for axis in AXES]
            self._divergence = body.sum(*differences)

    def result(self) -> str:
        """Write the steps; return the name of `relu(scale H[K] + shift)`."""
        body = self._body
        h = self._input if self._spec.start == "input" else self._transposed("start")
        if self._is_single:
            result = body.relu(body.sum(*self._terms(h, own=-1), *self._local_terms(h, self._previous)))
            return body.node(f"Div({result}, {self._denominator})") if self._spread else result
        step = self._divided_step if self._spread else self._step
        previous = h
        for _ in range(self._spec.num_steps):
            h, previous = step(h, previous), h
        return body.relu(body.affine(h, self._scale, "shift"))

    def _step(self, h: str, previous: str) -> str:
        return self._body.sum(*self._terms(h), *self._local_terms(previous, self._previous))

    def _divided_step(self, h: str, previous: str) -> str:
        """Write a step for an L that is a field."""
        body = self._body
        total = body.sum(*self._terms(h), *self._local_terms(previous, body.constant(2)))
        # The convolution converts it to the blocked layout.
        inverse = body.affine(body.node(f"Reciprocal({self._denominator})"), self._one)
        return body.sum(body.product(total, inverse), self._scaled(previous, body.constant(-1)))

    def _terms(self, h: str, own: float = 0) -> list[str]:
        """Return the terms of velocity and diffusion.

        With own = -1, the terms of diffusion are `2 B (neighbours - h)`: for a single step, where H[k-1] is H[k].
        """
        body, factor = self._body, self._factor
        terms = []
        for axis, courant in self._velocity.items():
            terms.append(body.product(courant, body.difference(h, axis, factor)))
        for axis, spread in self._spread.items():
            terms.append(body.product(spread, body.neighbours(h, axis, factor, own, self._shift)))
        for axis, spread in self._constant_spread.items():
            terms.append(body.neighbours(h, axis, body.product(factor, spread)))
        if self._velocity:
            terms.append(body.product(self._divergence, h))
        return terms

    def _local_terms(self, previous: str, factor: str) -> list[str]:
        """Return the terms `factor * previous` and s f, or their sum as one term where both have the same value."""
        factors = {previous: factor}
        if self._spec.source is not None:
            s = self._body.node("Constant <value_float: float = @source> ()")
            factors[self._source] = self._body.sum(factor, s) if self._source == previous else s
        return [
            self._body.affine(value, self._body.product(self._factor, factor), bias)
            for (value, factor), bias in zip(factors.items(), (self._shift, ""), strict=False)
        ]

    def _scaled(self, value: str, factor: str) -> str:
        return self._body.affine(value, self._body.product(self._one, factor))

    def _numbers(self, name: str, field: object, activation: str, factor: float) -> dict[Axis, str]:
        """Return `factor` times the Courant or diffusion numbers of both axes."""
        body, scalar = self._body, self._body.constant(factor)
        is_same = name == "diffusion" and self._spec.isotropic
        numbers: dict[Axis, str] = {}
        for axis in AXES:
            operand = f"{name}_{'x' if is_same else axis}"
            if is_convolution(field, activation):
                kernel, bias = (body.product(f"{operand}{part}", scalar) for part in ("", "_bias"))
                number = body.convolve(self._input, kernel, bias, PADDED)
                numbers[axis] = body.relu(number) if activation == "relu" else number
            else:
                numbers[axis] = self._scaled(self._transposed(operand), scalar)
        return numbers

    def _transposed(self, operand: str) -> str:
        """Return an operand (N, H, W, C) as (N, C, H, W)."""
        return self._body.node(f"Transpose <perm = [0, 3, 1, 2]> ({operand})")
