"""The operands of a call of `pdeinfer.GlobalLayer`: weights, folded, and maps that other operators compute.

A PDE layer has four numbers: the Courant numbers Ax and Ay and the diffusion numbers Bx and By (see `pdeinfer.pde`).
Each takes one of these forms:

    no operand                          0
    a value (N, H, W, C)                a map
    a value (1, 1, 1, 1)                a constant
    a value (C, 1, 3, 3), a bias (C,)   `relu(conv(h) + bias)` of the layer's input h, the value being the kernel;
                                        of Ax and Ay without the relu if the call's `signed_velocity` is 1

The convolutions pad with zeros, while the steps are periodic. The source f takes the form of a map or of a convolution;
without an operand it is h.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer import pde
from pdeinfer.spec.pde_spec import PeronaMalik

# By position.
OPERANDS = (
    "h",
    *("courant_x", "courant_x_bias", "courant_y", "courant_y_bias"),
    *("diffusion_x", "diffusion_x_bias", "diffusion_y", "diffusion_y_bias"),
    *("scale", "shift"),
    "start",
    *("source", "source_bias"),
)


def operand_name(layer: str, operand: str) -> str:
    """Return the name of a PDE layer's operand in the graph."""
    return f"{layer}/operands/{operand}"


def is_convolution(field: object, activation: str) -> bool:
    """Return whether the function computes a field itself, from a kernel and a bias: else the field is a map."""
    return field == "depthwise" and activation in ("relu", "linear")


def traced_operands(layer: Any, h: Any) -> dict[str, Any]:
    """Return the operands of a PDE layer, by name, that other operators compute from its input h.

    A map that serves both directions is given once, as that of x.
    """
    spec, traced = layer.spec, {"h": h}
    if spec.velocity is not None and not is_convolution(spec.velocity, spec.velocity_activation):
        traced |= _maps("courant", layer.compute_velocity(h), pde.courant_numbers, spec.dt)
    is_map = isinstance(spec.diffusivity, str | PeronaMalik)
    if is_map and not is_convolution(spec.diffusivity, spec.diffusivity_activation):
        traced |= _maps("diffusion", layer.compute_diffusivity(h), pde.diffusion_numbers, spec.dt)
    if spec.start != "input":
        traced["start"] = layer.compute_start(h)
    if spec.source not in (None, "input", "depthwise"):
        traced["source"] = layer.compute_source(h)
    return traced


def folded_operands(layer: Any) -> dict[str, NDArray[np.float32]]:
    """Return the operands of a PDE layer, by name, that are weights: float32, with every constant folded in.

    As relu(dt x) = dt relu(x), the time step goes into a number's convolution like the batch normalisation does. A
    convolution that serves both directions is given once, as that of x.
    """
    spec = layer.spec
    folded: dict[str, NDArray[Any]] = {}
    fields: dict[str, Any] = {}
    if is_convolution(spec.velocity, spec.velocity_activation):
        fields |= dict(zip(("courant_x", "courant_y"), layer.velocity_fields, strict=True))
    if is_convolution(spec.diffusivity, spec.diffusivity_activation):
        fields |= dict(zip(("diffusion_x", "diffusion_y"), layer.diffusivity_fields, strict=not spec.isotropic))
    if spec.source == "depthwise":
        fields |= dict(zip(("source",), layer.source_layers, strict=True))
    for name, field in fields.items():
        scale, shift = _affine(field.get_layer("norm"))
        kernel = np.asarray(field.get_layer("conv").kernel, np.float64)  # (3, 3, C, 1)
        factor = 1 if name == "source" else spec.dt
        folded[name] = (kernel * (scale * factor)[:, np.newaxis]).transpose(2, 3, 0, 1)
        folded[f"{name}_bias"] = shift * factor
    if isinstance(spec.diffusivity, float | int):
        folded["diffusion_x"] = np.full((1, 1, 1, 1), spec.diffusivity * spec.dt)
    folded["scale"], folded["shift"] = _affine(layer.norm)
    return {name: value.astype(np.float32) for name, value in folded.items()}


def _maps(name: str, fields: tuple[Any, Any], numbers: Callable[..., tuple[Any, Any]], dt: float) -> dict[str, Any]:
    x, y = numbers(fields, dt=dt)
    return {f"{name}_x": x} if fields[0] is fields[1] else {f"{name}_x": x, f"{name}_y": y}


def _affine(norm: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift, float64 (C,) each: a trained batch normalisation computes `scale * h + shift`."""
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64) for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
