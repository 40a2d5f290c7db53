"""Describes networks as frozen values, and names the presets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from pdeinfer.errors import PresetError
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.values import check_positive_int, check_tuple, from_tagged_dict, is_number, to_dict

Fit = Literal["crop", "pad", "stretch"]
StridedPadding = Literal["same", "symmetric"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The images that a network takes.

    Attributes:
        height, width: pixels. channels: 1 (grey) or 3 (RGB).
        mean, std: one per channel, of pixels scaled to 0..1; the network normalises with them.
        fit: how an image with another aspect ratio is fitted: "crop" to the middle, "pad" with black, or "stretch".
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        check_positive_int("height", self.height)
        check_positive_int("width", self.width)
        check_positive_int("channels", self.channels)
        if self.channels not in (1, 3):
            raise PresetError(f"channels must be 1 or 3, not {self.channels!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            check_tuple(name, values)
            if len(values) != self.channels or not all(is_number(value) for value in values):
                raise PresetError(f"{name} must hold one finite number per channel ({self.channels}), not {values!r}")
        if min(self.std) <= 0:
            raise PresetError(f"std must be positive, not {self.std!r}")
        if self.fit not in get_args(Fit):
            raise PresetError(f"fit must be one of {get_args(Fit)}, not {self.fit!r}")


@dataclass(frozen=True, slots=True)
class SingleChannelNetwork:
    """The paper's illustrative MNIST networks: one channel throughout, about 520 parameters.

    The layers are `f = conv3x3(relu(BN(x)))`, a feature block, relu, average pooling and a dense layer. The feature
    block is "conv", `conv3x3(relu(BN(f)))`; "residual", `relu(BN(f + conv3x3(relu(BN(f)))))`; or a PDE layer on f.
    """

    kind: ClassVar = "single-channel"

    feature: Literal["conv", "residual"] | PdeSpec
    pool_size: int = 4

    def __post_init__(self) -> None:
        if self.feature not in ("conv", "residual") and not isinstance(self.feature, PdeSpec):
            raise PresetError(f"feature must be 'conv', 'residual' or a PdeSpec, not {self.feature!r}")
        check_positive_int("pool_size", self.pool_size)


@dataclass(frozen=True, slots=True)
class DepthwiseConvolution:
    """A control for a PDE layer: `relu(BN(conv(h)))` with a depthwise convolution."""

    kind: ClassVar = "depthwise-convolution"

    kernel_size: int

    def __post_init__(self) -> None:
        check_positive_int("kernel_size", self.kernel_size)


@dataclass(frozen=True, slots=True)
class DepthwiseSum:
    """A control for a PDE layer: `relu(BN(sum))` over `num_terms` terms `relu(BN(conv(h)))`, depthwise convolutions.

    Four terms of kernel size 3 have as many weights as a PDE layer, and a sum in place of its scheme.
    """

    kind: ClassVar = "depthwise-sum"

    kernel_size: int
    num_terms: int

    def __post_init__(self) -> None:
        check_positive_int("kernel_size", self.kernel_size)
        check_positive_int("num_terms", self.num_terms)
        if self.num_terms < 2:
            raise PresetError(f"num_terms must be at least 2, not {self.num_terms!r}")


Control: TypeAlias = DepthwiseConvolution | DepthwiseSum


@dataclass(frozen=True, slots=True)
class ResidualNetwork:
    """A residual network of basic blocks; with `pde`, a PDE layer follows every stage but the last.

    Attributes:
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks_per_stage: basic blocks in a stage.
        pde: the PDE layers, or None.
        strided_padding: the zero padding of 3x3 convolutions with stride 2. "symmetric", as in the paper, adds one
            pixel on each side: output i is centred on pixel 2i, where the block's 1x1 shortcut samples. "same" is
            Keras's rule, which centres it on pixel 2i + 1 if the side is even.
        control: layers in place of the PDE layers, for comparison; only without `pde`.
    """

    kind: ClassVar = "residual"

    widths: tuple[int, ...]
    blocks_per_stage: int = 1
    pde: PdeSpec | None = None
    strided_padding: StridedPadding = "same"
    control: Control | None = None

    def __post_init__(self) -> None:
        check_tuple("widths", self.widths)
        if not self.widths:
            raise PresetError("widths must name the channels of at least one stage")
        for width in self.widths:
            check_positive_int("each of widths", width)
        check_positive_int("blocks_per_stage", self.blocks_per_stage)
        if self.pde is not None and not isinstance(self.pde, PdeSpec):
            raise PresetError(f"pde must be a PdeSpec or None, not {self.pde!r}")
        if self.strided_padding not in get_args(StridedPadding):
            raise PresetError(
                f"strided_padding must be one of {get_args(StridedPadding)}, not {self.strided_padding!r}"
            )
        if self.control is not None and not isinstance(self.control, Control):
            raise PresetError(f"control must be a DepthwiseConvolution, a DepthwiseSum or None, not {self.control!r}")
        if self.control is not None and self.pde is not None:
            raise PresetError("expected control or pde, got both: a control takes the place of PDE layers")


Network: TypeAlias = SingleChannelNetwork | ResidualNetwork


@dataclass(frozen=True, slots=True)
class Preset:
    """A complete classifier: its name, its input, the labels of its classes, and its network.

    Derive presets with other image sizes, channels or classes by `dataclasses.replace(PRESETS[...], labels=...)`.
    Files are named after presets: a name has ASCII letters, digits, '.', '_' and '-', and begins with a letter or
    digit.
    """

    name: str
    input: InputSpec
    labels: tuple[str, ...]
    network: Network

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise PresetError(
                f"name must be letters, digits, '.', '_' and '-', a letter or digit first, not {self.name!r}"
            )
        if not isinstance(self.input, InputSpec):
            raise PresetError(f"input must be an InputSpec, not {self.input!r}")
        check_tuple("labels", self.labels)
        if len(self.labels) < 2 or not all(isinstance(label, str) and label for label in self.labels):
            raise PresetError(f"labels must be at least two non-empty strings, not {self.labels!r}")
        if not all(label.isprintable() for label in self.labels):
            raise PresetError(f"labels must be of printable characters, not {self.labels!r}")
        if len(set(self.labels)) != len(self.labels):
            raise PresetError(f"labels must differ from each other: {self.labels!r}")
        if not isinstance(self.network, Network):
            raise PresetError(f"network must be a SingleChannelNetwork or a ResidualNetwork, not {self.network!r}")
        if isinstance(self.network, SingleChannelNetwork):
            smallest_side = min(self.input.height, self.input.width)
            if self.network.pool_size > smallest_side:
                raise PresetError(f"pool_size must fit the image ({smallest_side}), not {self.network.pool_size!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the preset as JSON values, the inverse of `from_dict`."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preset":
        """Make a preset from the JSON values that `to_dict` returns.

        Raises:
            PresetError: a value is missing, unknown or impossible.
        """
        try:
            network = _with_tuples(values["network"])
            for name in ("pde", "feature"):
                if isinstance(network.get(name), Mapping):
                    network[name] = PdeSpec.from_dict(network[name])
            if isinstance(network.get("control"), Mapping):
                network["control"] = from_tagged_dict("control", network["control"], DepthwiseConvolution, DepthwiseSum)
            parts = {
                "input": InputSpec(**_with_tuples(values["input"])),
                "network": from_tagged_dict("network", network, SingleChannelNetwork, ResidualNetwork),
            }
            return cls(**{**_with_tuples(values), **parts})
        except KeyError as error:
            raise PresetError(f"a preset needs the key {error}") from error
        except (TypeError, ValueError) as error:
            raise PresetError(f"not a preset: {error}") from error


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with lists as tuples, which JSON turns into lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(values).items()}


_DIGIT_LABELS = tuple("0123456789")
_CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Mean and standard deviation of the pixels of scikit-learn's digits (0..16) scaled to 0..1.
_DIGITS = InputSpec(8, 8, 1, mean=(0.3053,), std=(0.3760,), fit="pad")
_MNIST = InputSpec(28, 28, 1, mean=(0.1307,), std=(0.3081,), fit="pad")
_CIFAR10 = InputSpec(32, 32, 3, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))

_MNIST_CNN = Preset("mnist-cnn", _MNIST, _DIGIT_LABELS, SingleChannelNetwork("conv"))


def _mnist_pde(name: str, num_steps: int) -> Preset:
    pde = PdeSpec(num_steps, velocity="preactivation", diffusivity=1.0)
    return replace(_MNIST_CNN, name=name, network=SingleChannelNetwork(pde))


# The paper's network for CIFAR-10.
_PDE = PdeSpec(norm_epsilon="channels")
_GLOBAL_NETWORK = ResidualNetwork(widths=(16, 32, 64, 64), pde=_PDE, strided_padding="symmetric")
_GLOBAL = Preset("cifar10-global", _CIFAR10, _CIFAR10_LABELS, _GLOBAL_NETWORK)


def _pde_variant(name: str, **changes: Any) -> Preset:
    return _global_variant(name, pde=replace(_PDE, **changes))


def _global_variant(name: str, **changes: Any) -> Preset:
    return replace(_GLOBAL, name=name, network=replace(_GLOBAL_NETWORK, **changes))


def _cifar10_resnet(depth: int) -> Preset:
    """Return the ResNet with 6 n + 2 layers: three stages of n blocks."""
    network = ResidualNetwork((16, 32, 64), blocks_per_stage=(depth - 2) // 6, strided_padding="symmetric")
    return replace(_GLOBAL, name=f"cifar10-resnet{depth}", network=network)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("digits-pde", _DIGITS, _DIGIT_LABELS, ResidualNetwork(widths=(8, 16), pde=PdeSpec(num_steps=5))),
        _MNIST_CNN,
        replace(_MNIST_CNN, name="mnist-residual", network=SingleChannelNetwork("residual")),
        _mnist_pde("mnist-pde", num_steps=5),
        *(_mnist_pde(f"mnist-pde-k{num_steps}", num_steps) for num_steps in (1, 2, 10)),
        *(_cifar10_resnet(depth) for depth in (8, 14, 20, 32)),
        _GLOBAL,
        _pde_variant("cifar10-global-constant-d", diffusivity=1.0),
        _pde_variant("cifar10-global-no-advection", velocity=None),
        _pde_variant("cifar10-global-no-diffusion", diffusivity=None),
        _global_variant("cifar10-global-no-pde", pde=None),
        _global_variant("cifar10-global-depthwise7", pde=None, control=DepthwiseConvolution(7)),
        _global_variant("cifar10-global-depthwise-sum", pde=None, control=DepthwiseSum(3, num_terms=4)),
        _pde_variant("cifar10-global-k5", num_steps=5),
        _global_variant("cifar10-global-m2", blocks_per_stage=2),
        _global_variant("cifar10-global-tiny", widths=(9, 9, 16, 16), pde=replace(_PDE, num_steps=5)),
    )
}
