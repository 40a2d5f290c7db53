"""What was found in the PDE layers as JSON values, for `POST /inspect` and the file of `pdeinfer inspect --html`."""

import math
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer.inspection.fields import Field, LayerFields
from pdeinfer.spec.pde_spec import PdeSpec


def spec_values(spec: PdeSpec | None) -> dict[str, Any] | None:
    """Return what an inspection can change of PDE layers, and whether they have a source; None without PDE layers."""
    if spec is None:
        return None
    return {
        "dt": spec.dt,
        "num_steps": spec.num_steps,
        "advection": spec.velocity is not None,
        "diffusion": spec.diffusivity is not None,
        "source": spec.source is not None,
    }


def layer_values(layer: LayerFields, *, has_arrays: bool) -> dict[str, Any]:
    """Return the name, the shape and the stability of a PDE layer, and its arrays if wanted, else None for each."""
    with np.errstate(over="ignore", invalid="ignore"):  # an unstable scheme may have grown without bound
        (ax, ay), (bx, by) = layer.courant_numbers, layer.diffusion_numbers
        courant, diffusion, stable = _extent(np.abs(ax) + np.abs(ay)), _extent(bx + by), layer.stable
    return {
        "name": layer.name,
        "shape": layer.levels.shape[1:],
        "courant": courant,
        "diffusion": diffusion,
        "unstable": float(1 - stable.mean()),
        "fields": _fields(layer) if has_arrays else None,
        "levels": array_values(layer.levels) if has_arrays else None,
        "stable": array_values(stable.astype(np.uint8)) if has_arrays else None,
    }


def array_values(array: NDArray[np.uint8] | Field) -> dict[str, Any]:
    """Return an array as its dtype, its shape, and its numbers in base64: little-endian, in C order."""
    data = b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": array.shape, "data": data}


def _fields(layer: LayerFields) -> dict[str, dict[str, Any] | None]:
    fields = (*(layer.velocity or (None, None)), *(layer.diffusivity or (None, None)), layer.separate_source)
    return {
        name: None if field is None else array_values(field)
        for name, field in zip(("u", "v", "Dx", "Dy", "f"), fields, strict=True)
    }


def _extent(numbers: Field) -> dict[str, float | None]:
    extent = {"maximum": float(numbers.max()), "mean": float(numbers.mean())}
    return {name: value if math.isfinite(value) else None for name, value in extent.items()}
