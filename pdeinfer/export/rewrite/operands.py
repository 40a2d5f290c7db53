"""The operands of the operator `pdeinfer.GlobalLayer` that a PDE layer's call takes: folded weights, and traced maps.

In terms of a layer's input h, each of its four numbers, the Courant numbers Ax and Ay and the diffusion numbers Bx and
By (see `pdeinfer.pde`), is absent, or a value alone: a map (N, H, W, C) or a constant (1, 1, 1, 1); or, with a bias
(C,), the value is a depthwise kernel (C, 1, 3, 3), and the number `relu(conv(h) + bias)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pdeinfer import pde
from pdeinfer.checks.parity import Array
from pdeinfer.spec.pde_spec import PeronaMalik

# By position, as the operator takes them.
OPERANDS = (
    "h",
    *("courant_x", "courant_x_bias", "courant_y", "courant_y_bias"),
    *("diffusion_x", "diffusion_x_bias", "diffusion_y", "diffusion_y_bias"),
    *("scale", "shift"),
    "start",
)


def operand_name(layer: str, operand: str) -> str:
    """Return the name that a graph has for an operand of a PDE layer."""
    return f"{layer}/operands/{operand}"


def traced_operands(layer: Any, h: Any) -> dict[str, Any]:
    """Return those operands of a PDE layer, by name, that are computed from its input by other operators than its own.

    Where the Courant or diffusion numbers of both directions are one map, it is given once, as that of x.
    """
    spec, traced = layer.spec, {"h": h}
    if isinstance(spec.velocity, str) and spec.velocity != "depthwise":
        traced |= _maps("courant", layer.compute_velocity(h), pde.courant_numbers, spec.dt)
    if isinstance(spec.diffusivity, str | PeronaMalik) and spec.diffusivity != "depthwise":
        traced |= _maps("diffusion", layer.compute_diffusivity(h), pde.diffusion_numbers, spec.dt)
    if spec.start != "input":
        traced["start"] = layer.compute_start(h)
    return traced


def folded_operands(layer: Any) -> dict[str, Array]:
    """Return the other operands of a PDE layer by name, float32: its weights, with all that is constant folded in.

    A relu is positively homogeneous: not only a batch normalisation but also dt goes into a number's convolution.
    """
    spec = layer.spec
    folded: dict[str, Array] = {}
    fields: dict[str, Any] = {}
    if spec.velocity == "depthwise":
        fields |= dict(zip(("courant_x", "courant_y"), layer.velocity_fields, strict=True))
    if spec.diffusivity == "depthwise":
        fields |= dict(zip(("diffusion_x", "diffusion_y"), layer.diffusivity_fields, strict=True))
    for name, field in fields.items():
        scale, shift = _affine(field.get_layer("norm"))
        kernel = np.asarray(field.get_layer("conv").kernel, np.float64)  # (3, 3, C, 1)
        folded[name] = (kernel * (scale * spec.dt)[:, np.newaxis]).transpose(2, 3, 0, 1)
        folded[f"{name}_bias"] = shift * spec.dt
    if isinstance(spec.diffusivity, float | int):
        folded["diffusion_x"] = np.full((1, 1, 1, 1), spec.diffusivity * spec.dt)
    folded["scale"], folded["shift"] = _affine(layer.norm)
    return {name: value.astype(np.float32) for name, value in folded.items()}


def _maps(name: str, fields: tuple[Any, Any], numbers: Callable[..., tuple[Any, Any]], dt: float) -> dict[str, Any]:
    x, y = numbers(fields, dt=dt)
    return {f"{name}_x": x} if fields[0] is fields[1] else {f"{name}_x": x, f"{name}_y": y}


def _affine(norm: Any) -> tuple[Array, Array]:
    """Return what a trained batch normalisation does, `scale * h + shift`: two float64 arrays (C,)."""
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64) for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
