"""Small networks, one for each kind of PDE layer."""

from dataclasses import replace

from pdeinfer import PRESETS, PdeSpec, PeronaMalik, Preset, ResidualNetwork

VARIANTS = {
    "pointwise": PdeSpec(velocity="pointwise", diffusivity="pointwise"),
    "full": PdeSpec(velocity="full", diffusivity="full"),
    "residual": PdeSpec(velocity="residual", diffusivity="residual"),
    "identity": PdeSpec(velocity="identity", diffusivity="identity"),
    "preactivation-pointwise": PdeSpec(velocity="preactivation", diffusivity="pointwise"),
    "perona-malik": PdeSpec(diffusivity=PeronaMalik(0.5)),
    "learned-start": PdeSpec(start="residual"),
    "no-source": PdeSpec(source=None),
    "signed-velocity": PdeSpec(velocity_activation="linear"),
    "bounded-velocity": PdeSpec(velocity_activation="tanh"),
    "positive-diffusivity": PdeSpec(diffusivity_activation="softplus"),
    "learned-source": PdeSpec(source="depthwise", isotropic=True, velocity_activation="linear"),
    "learned-source-and-start": PdeSpec(source="depthwise", start="residual"),
    "pointwise-source": PdeSpec(source="pointwise", diffusivity="pointwise", isotropic=True),
    "signed-pointwise": PdeSpec(velocity="pointwise", velocity_activation="linear"),
}


def network(name: str) -> Preset:
    """A network for the digits with one PDE layer, of four channels and two steps."""
    return replace(
        PRESETS["digits-pde"],
        name=name,
        network=ResidualNetwork(widths=(4, 6), pde=replace(VARIANTS[name], num_steps=2)),
    )
