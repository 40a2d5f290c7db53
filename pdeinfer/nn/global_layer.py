"""The Global layer: a feature map evolved by the diffusion-advection equation."""

from typing import Any

import keras

from pdeinfer import pde
from pdeinfer.nn.blocks import batch_norm
from pdeinfer.nn.coefficients import diffusivity_fields, velocity_fields
from pdeinfer.presets import LearnedDiffusivity, LearnedVelocity, PdeSpec


@keras.saving.register_keras_serializable("pdeinfer")
class GlobalLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Solve the diffusion-advection equation with the input as source and as initial state.

    With h the input, `H[-1] = H[0] = f = h`; the velocity (u, v) and the diffusivity (Dx, Dy) are learned functions of
    h, computed once; `num_steps` steps of `pdeinfer.pde` follow, with periodic boundary, and the result is
    `relu(BatchNorm(H[num_steps]))`.

    Args:
        num_steps, dt, velocity, diffusivity: as in `pdeinfer.presets.PdeSpec`.

    Input and output: (N, H, W, C), floating point.

    Raises:
        PresetError: an argument has an impossible value.

    Source: Kag & Saligrama, "Condensing CNNs With Partial Differential Equations", CVPR 2022, section 3.
    """

    def __init__(
        self,
        num_steps: int = 1,
        dt: float = 0.2,
        velocity: LearnedVelocity | None = "depthwise",
        diffusivity: LearnedDiffusivity | float | None = "depthwise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = PdeSpec(num_steps, dt, velocity, diffusivity)
        self.norm = batch_norm(name="norm", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.velocity_fields = velocity_fields(self.spec.velocity, input_shape[-1], self.dtype_policy)
        self.diffusivity_fields = diffusivity_fields(self.spec.diffusivity, self.dtype_policy)
        for layer in (*self.velocity_fields, *self.diffusivity_fields, self.norm):
            layer.build(input_shape)

    def compute_velocity(self, h: Any, training: bool = False) -> tuple[Any, Any] | None:
        """Return `(u, v)`, each of h's shape (N, H, W, C), or None for no advection."""
        fields = [field(h, training=training) for field in self.velocity_fields]
        return (fields[0], fields[-1]) if fields else None

    def compute_diffusivity(self, h: Any, training: bool = False) -> tuple[Any, Any] | None:
        """Return `(Dx, Dy)`, each of h's shape (N, H, W, C) or a float, or None for no diffusion."""
        if self.diffusivity_fields:
            diffusivity_x, diffusivity_y = (field(h, training=training) for field in self.diffusivity_fields)
            return diffusivity_x, diffusivity_y
        constant = self.spec.diffusivity
        return None if constant is None else (constant, constant)

    def compute_levels(self, h: Any) -> list[Any]:
        """Return `[H[0], ..., H[num_steps]]`, each of h's shape (N, H, W, C), as `call` goes through them."""
        factors = pde.coefficients(
            self.compute_velocity(h), self.compute_diffusivity(h), dt=self.spec.dt, roll=keras.ops.roll
        )
        levels = [h, h]  # H[-1], H[0]
        for _ in range(self.spec.num_steps):
            levels.append(pde.step(levels[-1], levels[-2], h, factors, roll=keras.ops.roll))
        return levels[1:]

    def call(self, h: Any, training: bool = False) -> Any:
        factors = pde.coefficients(
            self.compute_velocity(h, training),
            self.compute_diffusivity(h, training),
            dt=self.spec.dt,
            roll=keras.ops.roll,
        )
        result, _ = pde.solve(h, h, h, factors, num_steps=self.spec.num_steps, roll=keras.ops.roll)
        return keras.ops.relu(self.norm(result, training=training))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        spec = self.spec
        return {
            **super().get_config(),
            "num_steps": spec.num_steps,
            "dt": spec.dt,
            "velocity": spec.velocity,
            "diffusivity": spec.diffusivity,
        }
