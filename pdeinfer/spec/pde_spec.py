"""Describes a PDE layer as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pdeinfer.errors import PresetError
from pdeinfer.spec.values import check_positive_int, from_tagged_dict, is_number, to_dict, use_plain_numbers

LearnedField = Literal["depthwise", "pointwise", "full", "residual", "identity"]
LearnedVelocity = Literal[LearnedField, "preactivation"]
Source = Literal["input"] | LearnedField
Start = Literal["input", "residual"]
MAX_STEPS = 1000  # of the fused operator too
NormEpsilon = float | Literal["channels"]
VelocityActivation = Literal["relu", "linear", "tanh"]
DiffusivityActivation = Literal["relu", "softplus"]


@dataclass(frozen=True, slots=True)
class PeronaMalik:
    """The diffusivity `Dx = Dy = 1 / (1 + |grad h|^2 / contrast^2)`, which smooths regions and keeps their edges.

    Attributes:
        contrast: lambda, the gradient of the layer's input per pixel at which the diffusivity is one half.

    Source: Perona & Malik, "Scale-space and edge detection using anisotropic diffusion", IEEE PAMI 12(7), 1990.
    """

    kind: ClassVar = "perona-malik"

    contrast: float

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        if not is_number(self.contrast) or self.contrast <= 0:
            raise PresetError(f"contrast must be a positive, finite number, not {self.contrast!r}")


@dataclass(frozen=True, slots=True)
class PdeSpec:
    """A PDE layer: the scheme of `pdeinfer.pde` with the sources of its fields, its source term and its initial levels.

    With h the layer's input, a learned field is `activation(BatchNorm(g(h)))`. g is one of "depthwise", a 3x3
    convolution within each channel; "pointwise", a 1x1 convolution; "full", a 3x3 convolution; "residual", a basic
    block (`pdeinfer.nn.blocks`); "identity", h itself. The convolutions pad with zeros; the scheme is periodic.

    Attributes:
        num_steps: K, the number of time steps, at most 1000; fewer fit into a package with several PDE layers
            (docs/method.md).
        dt: the time step; pixels are 1 apart.
        velocity: the source of u and v: a learned field for each; "preactivation", one field of either sign for both,
            `u = v = conv3x3(relu(BatchNorm(h)))`; or None, no advection.
        diffusivity: the source of Dx and Dy: a learned field for each; `PeronaMalik`; a number, that constant; or None,
            no diffusion.
        source: "input", f = h; a learned field, with relu and an epsilon of 1e-5; or None, no source.
        start: "input", `H[-1] = H[0] = h`; or "residual", `H[-1] = H[0] = a basic block of h`.
        norm_epsilon: epsilon of the learned fields' batch normalisations. "channels" is the number of channels, as in
            the paper's CIFAR-10 networks: untrained fields are then small, and the layer starts near the identity.
        velocity_activation: of learned u and v: "relu", never negative, as in the paper; "linear", of either sign;
            "tanh", `tanh(2 dt z) / (2 dt)` of z: of either sign, with Courant numbers below one half up to rounding,
            for which advection alone is stable. A preactivation velocity has none.
        diffusivity_activation: of learned Dx and Dy: "relu"; or "softplus", `log(1 + exp(z))`, which is positive and
            starts from `softplus(-3)`, about 0.05.
        isotropic: whether one learned field is both Dx and Dy; other diffusivities are isotropic anyway.
    """

    num_steps: int = 1
    dt: float = 0.2
    velocity: LearnedVelocity | None = "depthwise"
    diffusivity: LearnedField | PeronaMalik | float | None = "depthwise"
    source: Source | None = "input"
    start: Start = "input"
    norm_epsilon: NormEpsilon = 1e-5
    velocity_activation: VelocityActivation = "relu"
    diffusivity_activation: DiffusivityActivation = "relu"
    isotropic: bool = False

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        check_positive_int("num_steps", self.num_steps)
        if self.num_steps > MAX_STEPS:
            raise PresetError(f"num_steps must be at most {MAX_STEPS}, not {self.num_steps}")
        if not is_number(self.dt) or self.dt <= 0:
            raise PresetError(f"dt must be a positive, finite number, not {self.dt!r}")
        object.__setattr__(self, "dt", float(self.dt))  # an ONNX attribute has one type
        if self.velocity is not None and self.velocity not in get_args(LearnedVelocity):
            raise PresetError(f"velocity must be one of {get_args(LearnedVelocity)} or None, not {self.velocity!r}")
        if isinstance(self.diffusivity, str):
            if self.diffusivity not in get_args(LearnedField):
                raise PresetError(
                    f"diffusivity must be one of {get_args(LearnedField)}, a PeronaMalik, a number or None, "
                    f"not {self.diffusivity!r}"
                )
        elif (
            self.diffusivity is not None
            and not isinstance(self.diffusivity, PeronaMalik)
            and (not is_number(self.diffusivity) or self.diffusivity < 0)
        ):
            raise PresetError(f"a constant diffusivity must be a finite number >= 0, not {self.diffusivity!r}")
        if self.source is not None and self.source not in ("input", *get_args(LearnedField)):
            raise PresetError(f"source must be 'input', one of {get_args(LearnedField)} or None, not {self.source!r}")
        if self.start not in get_args(Start):
            raise PresetError(f"start must be one of {get_args(Start)}, not {self.start!r}")
        if self.norm_epsilon != "channels" and (not is_number(self.norm_epsilon) or self.norm_epsilon <= 0):
            raise PresetError(
                f"norm_epsilon must be 'channels' or a positive, finite number, not {self.norm_epsilon!r}"
            )
        self._check_activations()
        if not isinstance(self.isotropic, bool):
            raise PresetError(f"isotropic must be true or false, not {self.isotropic!r}")

    def _check_activations(self) -> None:
        for name, choices in (
            ("velocity_activation", get_args(VelocityActivation)),
            ("diffusivity_activation", get_args(DiffusivityActivation)),
        ):
            if getattr(self, name) not in choices:
                raise PresetError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if self.velocity == "preactivation" and self.velocity_activation != "relu":
            raise PresetError(f"a preactivation velocity has no activation, not {self.velocity_activation!r}")

    @property
    def has_separate_source(self) -> bool:
        """Whether there is a source f that is not H[0] too."""
        return self.source is not None and not self.source == self.start == "input"

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as JSON values, the inverse of `from_dict`."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PdeSpec":
        """Make a layer from the JSON values that `to_dict` returns.

        Raises:
            PresetError: a value is missing, unknown or impossible.
        """
        if not isinstance(values, Mapping):
            raise PresetError(f"a PDE layer must be an object, not {values!r}")
        try:
            values = dict(values)
            if isinstance(values.get("diffusivity"), Mapping):
                values["diffusivity"] = from_tagged_dict("diffusivity", values["diffusivity"], PeronaMalik)
            return cls(**values)
        except KeyError as error:
            raise PresetError(f"a PDE layer needs the key {error}") from error
        except TypeError as error:
            raise PresetError(f"not a PDE layer: {error}") from error
