"""The fields, the levels and the stability of a PDE layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdeinfer import pde
from pdeinfer.errors import ModelPackageError
from pdeinfer.package.package import FIELDS_FILE
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.text import counted

Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LayerFields:
    """The fields of one PDE layer, float32 (H, W, C), and the levels that follow from them; see `pdeinfer.pde`.

    x runs left to right, y top to bottom; pixels are 1 apart.

    Attributes:
        name: "layer1", "layer2", ... in the order of the network.
        spec: the number of steps K, dt, and the sources of the fields.
        velocity: (u, v), or None without advection. u and v may be one array.
        diffusivity: (Dx, Dy), or None without diffusion. They may be one array; a constant is an array of equal values.
        source: f, or None without a source.
        levels: (K + 1, H, W, C): H[0] to H[K]. The layer returns `relu(BatchNorm(H[K]))`. H[-1] is H[0].
    """

    name: str
    spec: PdeSpec
    velocity: tuple[Field, Field] | None
    diffusivity: tuple[Field, Field] | None
    source: Field | None
    levels: Field

    @property
    def separate_source(self) -> Field | None:
        """The source f, or None where there is none or it is H[0]."""
        return self.source if self.spec.has_separate_source else None

    @property
    def velocity_gradients(self) -> tuple[Field, Field] | None:
        """(u_x, v_y) by central differences, or None without advection."""
        return None if self.velocity is None else pde.velocity_gradients(self.velocity, roll=np.roll)

    @property
    def courant_numbers(self) -> tuple[Field, Field]:
        """(Ax, Ay) = (u dt, v dt); zeros without advection."""
        return pde.courant_numbers(self.velocity or self._zeros(), dt=self.spec.dt)

    @property
    def diffusion_numbers(self) -> tuple[Field, Field]:
        """(Bx, By) = (Dx dt, Dy dt); zeros without diffusion."""
        return pde.diffusion_numbers(self.diffusivity or self._zeros(), dt=self.spec.dt)

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Where the scheme is in its stable range, bool (H, W, C).

        Each point is judged by the condition for constant fields (see `pdeinfer.pde.courant_numbers`) with its own
        values: `|Ax| + |Ay| < 1` where Bx = By = 0, else `(Bx + By) (Ax^2 / Bx + Ay^2 / By) <= 1`. A direction without
        velocity adds 0 to the sum.
        """
        (ax, ay), (bx, by) = self.courant_numbers, self.diffusion_numbers
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sum_x, sum_y = (np.where(a == 0, 0, a * a / b) for a, b in ((ax, bx), (ay, by)))
            with_diffusion = (bx + by) * (sum_x + sum_y) <= 1
        return np.where(bx + by == 0, np.abs(ax) + np.abs(ay) < 1, with_diffusion)

    @property
    def summary(self) -> tuple[str, ...]:
        """Lines of text: size, Courant and diffusion numbers, and the share of unstable points."""
        _, height, width, channels = self.levels.shape
        steps = f"K = {counted(self.spec.num_steps, 'step')} of dt = {self.spec.dt:g}"
        courant, diffusion = "no advection: u = v = 0", "no diffusion: Dx = Dy = 0"
        if self.velocity is not None:
            ax, ay = (np.abs(number) for number in self.courant_numbers)
            courant = (
                f"Courant numbers: {_extent('|Ax|', ax)}; {_extent('|Ay|', ay)}; {_extent('|Ax| + |Ay|', ax + ay)}"
            )
        if isinstance(self.spec.diffusivity, float | int):
            diffusion = f"diffusion numbers: Bx = By = {self.diffusion_numbers[0].flat[0]:.3g}, constant"
        elif self.diffusivity is not None:
            bx, by = self.diffusion_numbers
            diffusion = f"diffusion numbers: {_extent('Bx', bx)}; {_extent('By', by)}; {_extent('Bx + By', bx + by)}"
        largest = [float(np.abs(level).max()) for level in self.levels]
        source = ("no source: f = 0",) if self.source is None else ()
        return (
            f"{counted(channels, 'channel')} of {height} x {width} points, {steps}",
            courant,
            diffusion,
            *source,
            *self._zero_summary,
            f"outside the stable range: {_percent(1 - self.stable.mean())} of the points",
            f"largest |H|: {largest[0]:.3g} at H[0], {largest[-1]:.3g} at H[{self.spec.num_steps}]",
        )

    @property
    def zero_channels(self) -> dict[str, int]:
        """How many channels of each field, "u", "v", "Dx", "Dy" and a learned source "f", are zero at every point.

        Of a field that ends in a relu, a channel that is zero for every image has died in training.
        """
        pairs = (("u", "v", self.velocity), ("Dx", "Dy", self.diffusivity))
        fields = {name: field for x, y, pair in pairs if pair for name, field in zip((x, y), pair, strict=True)}
        if self.source is not None and self.spec.source != "input":
            fields["f"] = self.source
        return {name: int((field == 0).all(axis=(0, 1)).sum()) for name, field in fields.items()}

    @property
    def _zero_summary(self) -> tuple[str, ...]:
        zero = [f"{name} {count}" for name, count in self.zero_channels.items() if count]
        return (f"zero in every point of a channel: {', '.join(zero)} of {self.levels.shape[-1]}",) if zero else ()

    @property
    def instability(self) -> str | None:
        """One line on the consequence of unstable points; None if there are none."""
        share = 1 - self.stable.mean()
        if share == 0:
            return None
        outside = f"the scheme is outside its stable range at {_percent(share)} of the points"
        if self.spec.num_steps == 1:
            return f"{outside}; with a single step (K = 1), disturbances grow at most once"
        return f"{outside}; there, disturbances can grow with each of the {self.spec.num_steps} steps"

    def of_image(self, index: int) -> "LayerFields":
        """Return the layer of one image of a batch, whose arrays have the axis N before H, W and C."""

        def pair(fields: tuple[Field, Field] | None) -> tuple[Field, Field] | None:
            if fields is None:
                return None
            first = fields[0][index]
            return first, first if fields[1] is fields[0] else fields[1][index]

        source = None if self.source is None else self.source[index]
        return replace(
            self,
            velocity=pair(self.velocity),
            diffusivity=pair(self.diffusivity),
            source=source,
            levels=self.levels[:, index],
        )

    def _zeros(self) -> tuple[Field, Field]:
        zeros = np.zeros_like(self.levels[0])
        return zeros, zeros


def _extent(name: str, values: Field) -> str:
    return f"{name} maximum {values.max():.3g}, mean {values.mean():.3g}"


def _percent(share: float) -> str:
    return "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def layer_fields(outputs: Mapping[str, NDArray[Any]], name: str, spec: PdeSpec) -> LayerFields:
    """Return a layer that the outputs of `fields.onnx` describe, with its levels.

    Args:
        outputs: (N, H, W, C) by the names of `pdeinfer.export.rewrite.fields`.
        name: the layer's.
        spec: of the layer. It may differ from the one of the file in dt and num_steps, and have no velocity or no
            diffusivity. The fields are those of the file: another dt changes the Courant numbers of a tanh velocity
            too.

    Returns:
        The layer; its arrays have the axis N before H, W and C.

    Raises:
        ModelPackageError: an output that `spec` requires is missing, or is not float32 with the shape of the start.
    """
    arrays = {key.partition("/")[2]: value for key, value in outputs.items() if key.startswith(f"{name}/")}
    try:
        return _layer(name, arrays, spec)
    except KeyError as error:
        missing = f"{name}/{error.args[0]}"
        raise ModelPackageError(f"{FIELDS_FILE} lacks the output {missing!r}") from error


def _layer(name: str, arrays: Mapping[str, NDArray[Any]], spec: PdeSpec) -> LayerFields:
    start = arrays["start"]
    for symbol, array in arrays.items():
        if array.ndim != 4 or array.shape != start.shape or array.dtype != np.float32:
            raise ModelPackageError(
                f"the output {name}/{symbol} is {array.dtype} {array.shape}; the layer's start is "
                f"{start.dtype} {start.shape}"
            )
    source = arrays["source"] if spec.has_separate_source else None if spec.source is None else start
    velocity = diffusivity = None
    if spec.velocity is not None:
        u = arrays["u"]
        velocity = (u, u if spec.velocity == "preactivation" else arrays["v"])
    if isinstance(spec.diffusivity, float | int):
        constant = np.full_like(start, spec.diffusivity)
        diffusivity = (constant, constant)
    elif spec.diffusivity is not None:
        diffusivity_x = arrays["Dx"]
        is_shared = spec.isotropic or isinstance(spec.diffusivity, PeronaMalik)
        diffusivity = (diffusivity_x, diffusivity_x if is_shared else arrays["Dy"])
    factors = pde.coefficients(velocity, diffusivity, dt=spec.dt, roll=np.roll)
    forced = 0.0 if source is None else source
    levels = [start, *pde.levels(start, start, forced, factors, num_steps=spec.num_steps, roll=np.roll)]
    return LayerFields(name, spec, velocity, diffusivity, source, np.stack(levels))
