"""The Global layer: a feature map evolved by the diffusion-advection equation."""

from typing import Any

import keras

from pdeinfer import pde
from pdeinfer.nn import step_gradient
from pdeinfer.nn.blocks import batch_norm
from pdeinfer.nn.fields import diffusivity_fields, source_layers, start_layers, velocity_fields
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik


@keras.saving.register_keras_serializable("pdeinfer")
class GlobalLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Solve the diffusion-advection equation, starting from the input.

    With h the input, the velocity (u, v), the diffusivity (Dx, Dy), the source f and the start `H[-1] = H[0]` are
    functions of h, computed once. By default f and the start are h itself. `num_steps` steps of `pdeinfer.pde` follow,
    with periodic boundary, and the result is `relu(BatchNorm(H[num_steps]))`.

    Args:
        spec: the steps and what the fields, the source and the start are made from.

    Input and output: (N, H, W, C), floating point.

    Source: Kag & Saligrama, "Condensing CNNs With Partial Differential Equations", CVPR 2022, section 3.
    """

    # The periodic shift. Export replaces it in a layer where a runtime lacks the operator.
    roll: pde.Roll = staticmethod(keras.ops.roll)

    def __init__(self, spec: PdeSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.norm = batch_norm(name="norm", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        spec, channels, dtype = self.spec, input_shape[-1], self.dtype_policy
        self.velocity_fields = velocity_fields(spec, channels, dtype)
        self.diffusivity_fields = diffusivity_fields(spec, channels, dtype)
        self.source_layers = source_layers(spec, channels, dtype)
        self.start_layers = start_layers(spec.start, channels, dtype)
        for layer in (*self.inner_layers(), self.norm):
            layer.build(input_shape)

    # Not a property: Keras would save the weights of these layers under its name.
    def inner_layers(self) -> tuple[keras.layers.Layer, ...]:
        """Return the layers that make the fields, the source and the start."""
        return (*self.velocity_fields, *self.diffusivity_fields, *self.source_layers, *self.start_layers)

    def compute_velocity(self, h: Any, training: bool = False) -> tuple[Any, Any] | None:
        """Return `(u, v)`, each of h's shape (N, H, W, C), or None for no advection."""
        fields = [field(h, training=training) for field in self.velocity_fields]
        return (fields[0], fields[-1]) if fields else None

    def compute_diffusivity(self, h: Any, training: bool = False) -> tuple[Any, Any] | None:
        """Return `(Dx, Dy)`, each of h's shape (N, H, W, C) or a float, or None for no diffusion."""
        if self.diffusivity_fields:
            fields = [field(h, training=training) for field in self.diffusivity_fields]
            return fields[0], fields[-1]
        diffusivity: Any = self.spec.diffusivity
        if isinstance(diffusivity, PeronaMalik):
            diffusivity = pde.perona_malik_diffusivity(h, contrast=diffusivity.contrast, roll=self.roll)
        return None if diffusivity is None else (diffusivity, diffusivity)

    def compute_source(self, h: Any, training: bool = False) -> Any:
        """Return the source f of h's shape (N, H, W, C), or 0.0 for none."""
        if self.spec.source is None:
            return 0.0
        for layer in self.source_layers:
            h = layer(h, training=training)
        return h

    def compute_start(self, h: Any, training: bool = False) -> Any:
        """Return `H[0]`, which is also `H[-1]`, of h's shape (N, H, W, C)."""
        for layer in self.start_layers:
            h = layer(h, training=training)
        return h

    def compute_levels(self, h: Any) -> list[Any]:
        """Return `[H[0], ..., H[num_steps]]`, each of h's shape (N, H, W, C), as `call` computes them."""
        start, source, factors = self._problem(h)
        num_steps = self.spec.num_steps
        return [start, *pde.levels(start, start, source, factors, num_steps=num_steps, roll=self.roll)]

    def call(self, h: Any, training: bool = False) -> Any:
        num_steps = self.spec.num_steps
        if training and step_gradient.is_faster(h):
            fields = self.compute_velocity(h, training), self.compute_diffusivity(h, training)
            start, source = self.compute_start(h, training), self.compute_source(h, training)
            result = step_gradient.solve(start, source, *fields, num_steps=num_steps, dt=self.spec.dt)
        else:
            start, source, factors = self._problem(h, training)
            result, _ = pde.solve(start, start, source, factors, num_steps=num_steps, roll=self.roll)
        return keras.ops.relu(self.norm(result, training=training))

    def _problem(self, h: Any, training: bool = False) -> tuple[Any, Any, pde.Coefficients]:
        """Return `H[-1] = H[0]`, the source f and the factors of the scheme: all that the steps need."""
        factors = pde.coefficients(
            self.compute_velocity(h, training),
            self.compute_diffusivity(h, training),
            dt=self.spec.dt,
            roll=self.roll,
        )
        return self.compute_start(h, training), self.compute_source(h, training), factors

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": self.spec.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GlobalLayer":
        layer: GlobalLayer = super().from_config({**config, "spec": PdeSpec.from_dict(config["spec"])})
        return layer
